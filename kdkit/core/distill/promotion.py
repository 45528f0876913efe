"""After training: judge the student, and write the version with its lineage."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import nn

from kdkit.core.base.atomic import new_folder
from kdkit.core.base.jsonl import write_rows
from kdkit.core.contracts import Reporter, Student
from kdkit.core.distill.judge import Judge
from kdkit.core.distill.loop.checkpoint_state import task_tensors
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.plan.types import Plan
from kdkit.core.distill.run_lineage import make_lineage, scores_of
from kdkit.core.distill.trained_run import TrainedRun
from kdkit.core.evaluation.scores import Evaluation
from kdkit.core.project.lineage import Lineage, RetentionRecord
from kdkit.core.project.manifest import write_manifest
from kdkit.core.project.versions import CORRECTIONS, EVALUATION, LINEAGE, SAMPLES, TASK, Version, Versions, load_student

if TYPE_CHECKING:
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class Outcome:
    """The result of a run: the new version, promoted or a refused candidate."""

    version: Version

    @property
    def evaluation(self) -> Evaluation:
        """On the calibration split, student and teachers."""
        return Evaluation.load(self.version.file(EVALUATION))

    @property
    def retention(self) -> RetentionRecord | None:
        """Against the parent, with the verdict of the guard; None for the first version."""
        return self.version.lineage.retention


def promote(project: Project, run: TrainedRun, reporter: Reporter) -> Outcome:
    """Judge the student, unless that was done, and write the version; make it current if it passed."""
    judgement = run.judgement
    if judgement is None:
        judgement = Judge(project, run.plan, run.inventory, run.parent, reporter).judge(run.task.student)
    versions = Versions(project)
    name, refused = versions.next_name(), not judgement.passed
    lineage = replace(
        make_lineage(project, run, name, scores_of(judgement.evaluation)),
        retention=judgement.retention,
        repair=run.repair,
    )
    with versions.writing(name, refused=refused) as folder:
        write_student(folder, run, lineage)
        judgement.evaluation.save(folder / EVALUATION)
    if not refused:
        current = versions.current()
        if run.parent is not None and current is not None and current.name != run.parent.name:
            reporter.warn(
                f"{current.name} became current while this run trained; now {name} is: 'kdkit rollback "
                f"{current.name}' returns to it"
            )
        versions.make_current(name)
    return Outcome(versions.get(name))


def write_student(folder: Path, run: TrainedRun, lineage: Lineage) -> None:
    """Write student, task, digests of samples, corrections and lineage into the folder of a version or stage."""
    student = run.task.student.to("cpu").eval()
    cast(Student, student).save(folder / "student")
    rest = {name: x for name, x in task_tensors(run.task).items() if not name.startswith("student.")}
    save_file(rest, folder / TASK)
    save_arrays({"digests": run.known_samples.view(np.int64)}, folder / SAMPLES)
    (folder / LINEAGE).write_bytes(lineage.to_bytes())
    if run.corrections is not None:
        write_rows(folder / CORRECTIONS, run.corrections.rows)
    elif lineage.correction is not None and run.after is not None:
        shutil.copyfile(run.after.file(CORRECTIONS), folder / CORRECTIONS)


def judge_again(
    project: Project,
    plan: Plan,
    inventory: TeachingInventory,
    version: Version,
    parent: Version,
    reporter: Reporter,
) -> Version:
    """Judge a refused candidate by the guard and the calibration data of today; promote it if it passes.

    It passes as it was trained, so its lineage then has no repair.
    """
    student = cast(nn.Module, load_student(version, project.catalogue))
    judgement = Judge(project, plan, inventory, parent, reporter).judge(student)
    if judgement.retention != version.lineage.retention:
        scores = scores_of(judgement.evaluation)
        repair = None if judgement.passed else version.lineage.repair  # it failed under the guard of then
        lineage = replace(version.lineage, retention=judgement.retention, scores=scores, repair=repair)
        with new_folder(version.folder, replace=True) as draft:
            shutil.copytree(version.folder, draft, dirs_exist_ok=True)
            judgement.evaluation.save(draft / EVALUATION)
            (draft / LINEAGE).write_bytes(lineage.to_bytes())
            write_manifest(draft)
    versions = Versions(project)
    if judgement.passed:
        versions.promote(version.name)
    return versions.get(version.name)
