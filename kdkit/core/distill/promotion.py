"""After training: judge the student, and write the version with its lineage."""

from __future__ import annotations

import json
import platform
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import nn

import kdkit
from kdkit.core.base.atomic import new_folder
from kdkit.core.base.errors import KdkitError
from kdkit.core.base.jsonl import write_rows
from kdkit.core.contracts import Reporter, Student
from kdkit.core.distill.guard_tasks import STUDENT
from kdkit.core.distill.judge import Judge, Judgement
from kdkit.core.distill.loop.checkpoint import Progress, task_tensors
from kdkit.core.distill.loop.sampler import use_of_domains
from kdkit.core.distill.model.task import DistillTask
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.plan.types import Plan
from kdkit.core.evaluation.scores import Evaluation
from kdkit.core.plugin_system.installed import BUILT_IN
from kdkit.core.project.licenses import LicenseFacts
from kdkit.core.project.lineage import (
    CorrectionRecord,
    DataRecord,
    Environment,
    Lineage,
    Machine,
    RetentionRecord,
    Scores,
    StudentRecord,
    TeacherRecord,
    TrainingRecord,
    TrustScore,
)
from kdkit.core.project.manifest import write_manifest
from kdkit.core.project.on_policy_record import OnPolicyRecord
from kdkit.core.project.registry.chosen import chosen_teacher
from kdkit.core.project.registry.pins import names_of, used_names
from kdkit.core.project.repair_record import RepairRecord
from kdkit.core.project.versions import CORRECTIONS, EVALUATION, LINEAGE, SAMPLES, TASK, Version, Versions, load_student

if TYPE_CHECKING:
    from kdkit.core.distill.correction.loader import Corrections
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


@dataclass(frozen=True)
class TrainedRun:
    """A run after its last step.

    Attributes:
        parent: the version that an increment started from.
        corrections: of its rounds of correction, if it had any.
        judgement: of the student as it is now, if it was judged while the run could still repair it.
        repair: what was tried because the guard refused the student as it was trained.
    """

    plan: Plan
    inventory: TeachingInventory
    parent: Version | None
    task: DistillTask
    progress: Progress
    machine: Machine
    corrections: Corrections | None = None
    judgement: Judgement | None = None
    repair: RepairRecord | None = None

    @property
    def known_domains(self) -> set[str]:
        """Domains that the student was taught, in this run or before."""
        index, plan = self.inventory.index, self.plan
        taught = {index.domains[d] for pool in plan.pools for d in np.unique(pool.domain)}
        if not self.inventory.learns_alone:
            taught -= set(plan.domains_without_teacher)
        return taught | (set(self.parent.lineage.data.known) if self.parent else set())

    @property
    def known_samples(self) -> np.ndarray[Any, Any]:
        """(N,) uint64, sorted: digests of all training samples that the student was taught, in this run or before."""
        taught = self.inventory.index.digests[self.plan.samples]
        return np.unique(np.concatenate([taught, self.parent.known_samples()]) if self.parent else taught)


def promote(project: Project, run: TrainedRun, reporter: Reporter) -> Outcome:
    """Judge the student, unless that was done, and write the version; make it current if it passed."""
    judgement = run.judgement
    if judgement is None:
        judgement = Judge(project, run.plan, run.inventory, run.parent, reporter).judge(run.task.student)
    versions, own = Versions(project), run.plan.on_policy
    name, refused = versions.next_name(), not judgement.passed
    lineage = replace(
        _lineage(project, run, name, judgement.evaluation),
        retention=judgement.retention,
        correction=None if run.corrections is None else _correction(project, run.plan, run.corrections),
        on_policy=None if own is None else OnPolicyRecord(own.scorers, own.answers, own.drawn),
        repair=run.repair,
    )
    with versions.writing(name, refused=refused) as folder:
        student = run.task.student.to("cpu").eval()
        cast(Student, student).save(folder / "student")
        rest = {name: x for name, x in task_tensors(run.task).items() if not name.startswith("student.")}
        save_file(rest, folder / TASK)
        save_arrays({"digests": run.known_samples.view(np.int64)}, folder / SAMPLES)
        judgement.evaluation.save(folder / EVALUATION)
        (folder / LINEAGE).write_bytes(lineage.to_bytes())
        if run.corrections is not None:
            write_rows(folder / CORRECTIONS, run.corrections.rows)
    if not refused:
        current = versions.current()
        if run.parent is not None and current is not None and current.name != run.parent.name:
            reporter.warn(
                f"{current.name} became current while this run trained; now {name} is: 'kdkit rollback "
                f"{current.name}' returns to it"
            )
        versions.make_current(name)
    return Outcome(versions.get(name))


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
        scores = _scores(judgement.evaluation)
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


def _lineage(project: Project, run: TrainedRun, name: str, evaluation: Evaluation) -> Lineage:
    registry, plan = project.registry, run.plan
    student = registry.student
    domains, counts = np.unique(np.concatenate([pool.domain for pool in plan.pools]), return_counts=True)
    return Lineage(
        version=name,
        parent=plan.parent,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        student=StudentRecord(student.family, student.config, dict(cast(Student, run.task.student).identity())),
        teachers=_teachers(project, run, name),
        recipe=plan.recipe,
        data=DataRecord(
            samples={run.inventory.index.domains[d]: int(n) for d, n in zip(domains, counts, strict=True)},
            known=tuple(sorted(run.known_domains)),
            fresh=plan.fresh,
            replayed=plan.replayed,
            skipped_samples=plan.skipped_samples,
            domains_without_teacher=plan.domains_without_teacher,
            domains_without_rehearsal=plan.domains_without_rehearsal,
            licenses=tuple(sorted({entry.license for entry in registry.data if entry.license})),
            captions=dict(plan.captions) if run.inventory.learns_alone else {},
            drawn={} if plan.correction else {name: use.drawn for name, use in use_of_domains(plan).items()},
        ),
        training=TrainingRecord(
            steps=plan.settings.steps,
            batch_size=plan.batch_size,
            lr=plan.settings.lr,
            seed=plan.settings.seed,
            previous=None if plan.parent is None else plan.previous,
            seconds=round(run.progress.seconds, 3),
            machine=run.machine,
            log=tuple(run.progress.log),
            digest=plan.digest,
        ),
        environment=Environment(
            kdkit=kdkit.__version__,
            python=platform.python_version(),
            torch=torch.__version__,
            platform=f"{platform.system()} {platform.machine()}",
            plugins=_used_plugins(project, plan),
        ),
        scores=_scores(evaluation),
    )


def _scores(evaluation: Evaluation) -> Scores:
    model = evaluation.model(STUDENT)
    domains = {domain: dict(score.metrics) for domain, score in model.domains.items()}
    return Scores("calibration", dict(model.means), domains)


def _used_plugins(project: Project, plan: Plan) -> dict[str, str]:
    """Distribution -> version of those that provide the student, its teachers, and parts of the recipe.

    Others, and sources of data, concern nobody who gets the student.
    """
    used = {BUILT_IN, *(project.lock.teacher(teacher.name).provider.partition("@")[0] for teacher in plan.teachers)}
    names = used_names(project, project.lock, project.registry.recipe)
    for family, name in {*names, *names_of(plan.recipe)}:
        if family != "source":
            with suppress(KdkitError):
                used.add(project.catalogue.get(family, name).provider)
    named = json.dumps(project.registry.student.config, default=str)
    return {
        record.distribution: record.version
        for record in project.catalogue.records
        if record.status == "ok" and (record.distribution in used or f'"{record.distribution}:' in named)
    }


def _teachers(project: Project, run: TrainedRun, name: str) -> tuple[TeacherRecord, ...]:
    """Teachers of this run, then those that only earlier versions learned from."""
    inherited = {} if run.parent is None else {teacher.name: teacher for teacher in run.parent.lineage.teachers}
    trust, records = run.inventory.trust, list[TeacherRecord]()
    for row, teacher in enumerate(run.plan.teachers):
        facts = project.lock.teacher(teacher.name)
        scores = np.stack([trust.accuracy[row], trust.lower[row], trust.upper[row]], axis=1)
        record = TeacherRecord(
            name=teacher.name,
            fingerprint=teacher.fingerprint,
            source=facts.source,
            commit=facts.commit,
            provider=facts.provider,
            license_facts=_license_facts(project, teacher.name),
            domains=dict(teacher.admitted),
            samples=teacher.samples,
            signals="live" if teacher.live else "stored",
            trust={d: TrustScore(*map(_number, values)) for d, values in zip(trust.domains, scores, strict=True)},
            since=name if teacher.new else inherited[teacher.name].since,
        )
        records.append(record)
    gone = [replace(old, inherited=True) for key, old in inherited.items() if key not in run.inventory.teachers]
    return (*records, *gone)


def _license_facts(project: Project, teacher: str) -> LicenseFacts:
    locked = project.lock.teacher(teacher)
    return chosen_teacher(project, teacher).license_facts(locked.license, gated=locked.gated)


def _correction(project: Project, plan: Plan, corrections: Corrections) -> CorrectionRecord:
    assert plan.correction is not None
    corrector = plan.correction.corrector
    record = CorrectionRecord(
        corrector=corrector,
        file=CORRECTIONS,
        corrected=len(corrections.rows),
        rounds=corrections.rounds,
    )
    if not plan.correction.fingerprint:
        return record
    fingerprint = project.lock.teacher(corrector).fingerprint
    return replace(record, fingerprint=fingerprint, license_facts=_license_facts(project, corrector))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
