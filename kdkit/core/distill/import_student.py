"""``kdkit import-student``: the student's initial weights become version v0, judged and recorded, without training."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import numpy as np
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Reporter, Student
from kdkit.core.data import load_index
from kdkit.core.data.unreadable import find_skipped
from kdkit.core.distill.judge import evaluate_student
from kdkit.core.distill.model.initial_origin import initial_files, initial_weights_of
from kdkit.core.distill.model.student import StudentBuilder, student_facts
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.promotion import Outcome
from kdkit.core.distill.run_lineage import describe_software, scores_of
from kdkit.core.evaluation.scores import Evaluation
from kdkit.core.project.import_record import ImportRecord
from kdkit.core.project.lineage import DataRecord, Lineage, StudentRecord
from kdkit.core.project.manifest import STUDENT
from kdkit.core.project.recipe_file import load_recipe
from kdkit.core.project.registry.load import line_of
from kdkit.core.project.registry.pins import pin_names
from kdkit.core.project.training_record import Machine, TrainingRecord
from kdkit.core.project.versions import EVALUATION, IMPORTED, LINEAGE, SAMPLES, TASK, Versions
from kdkit.core.teachers.initial_weights import initial_lines, initial_parts, with_initial_weights

if TYPE_CHECKING:
    from kdkit.core.project.project import Project

PRECISION = "no"
"""In the lineage, which names one: that of the evaluation."""


def import_student(project: Project, reporter: Reporter, *, seed: int = 0, device: str = "cpu") -> Outcome:
    """Make the registry's student, as ``init`` has it, version v0, and make that current.

    It is evaluated on the calibration split, as the result of a run is. The domains that this measures are those that
    it knows. The same call again finishes a killed import, and changes nothing after a finished one.

    Args:
        seed: of parts that ``init`` does not decide.
        device: of the student during the evaluation.

    Raises:
        KdkitError: the project has other versions; the student starts from random weights; errors of registry, data or
            initial weights.
    """
    versions = Versions(project)
    _require_only_an_import(versions)
    _require_initial_weights(project)
    project = with_initial_weights(project, reporter)
    imported = ImportRecord(initial_files(project), seed)
    digest = _digest(project, imported)
    if versions.names():
        return _finish_again(versions, digest, reporter)
    for line in initial_lines(project):
        reporter.say(line)
    student = StudentBuilder.of(project, None, seed).student.eval().to(device)
    evaluation = _evaluate(project, student, reporter)
    lineage = _lineage(project, student, evaluation, imported, digest, device)
    pin_names(project)
    with versions.writing(IMPORTED, refused=False) as folder:
        cast(Student, student.to("cpu")).save(folder / STUDENT)
        save_file({}, folder / TASK)
        save_arrays({"digests": np.zeros(0, dtype=np.int64)}, folder / SAMPLES)
        (folder / LINEAGE).write_bytes(lineage.to_bytes())
        evaluation.save(folder / EVALUATION)
    versions.make_current(IMPORTED)
    return Outcome(versions.get(IMPORTED))


def _require_only_an_import(versions: Versions) -> None:
    found = (*versions.names(), *versions.candidates())
    if found and found != (IMPORTED,):
        raise _not_the_first(versions, f"the project has versions already: {', '.join(found)}")


def _finish_again(versions: Versions, digest: str, reporter: Reporter) -> Outcome:
    """The version of an earlier import of the same weights, made current if a kill came before that.

    Raises:
        KdkitError: it has other weights, or is damaged.
    """
    version = versions.made_by(digest, PRECISION)
    if version is None:
        raise _not_the_first(versions, f"{IMPORTED} is there already, of other weights or another seed, or damaged")
    reporter.say(f"{IMPORTED} has these weights already")
    versions.make_current(IMPORTED)
    return Outcome(version)


def _not_the_first(versions: Versions, what: str) -> KdkitError:
    return KdkitError(
        "KD-DIST-490",
        what,
        where=str(versions.root),
        why="an imported student is the first version, v0, with which later ones are compared",
        fix="'kdkit distill --incremental' continues the current version; import other weights into a new project",
        code=ExitCode.USAGE,
    )


def _require_initial_weights(project: Project) -> None:
    if not initial_parts(project):
        raise KdkitError(
            "KD-DIST-491",
            "the student starts from random weights, so there is nothing to import",
            where=line_of(project.registry_path, "student"),
            why=f"the config of student '{project.registry.student.family}' names no weights",
            fix="name a folder or an entry of the catalogue as 'init' of its config; or 'kdkit distill'",
            code=ExitCode.USAGE,
        )


def _evaluate(project: Project, student: nn.Module, reporter: Reporter) -> Evaluation:
    """Scores on the calibration split, without teachers."""
    index = load_index(project, reporter)
    inventory = TeachingInventory.without_teachers(index, find_skipped(index, project.state, reporter))
    reporter.say("evaluating on the calibration split")
    return evaluate_student(project, inventory, student, reporter, teachers=False)


def _digest(project: Project, imported: ImportRecord) -> str:
    """SHA-256 of what decides the version's weights."""
    facts = json.dumps([student_facts(project), imported.to_json()], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()


def _lineage(
    project: Project, student: nn.Module, evaluation: Evaluation, imported: ImportRecord, digest: str, device: str
) -> Lineage:
    entry, registry, scores = project.registry.student, project.registry, scores_of(evaluation)
    recipe = load_recipe(registry.recipe, project.catalogue, project.root).changed_by(registry)
    record = StudentRecord(entry.family, entry.config, dict(cast(Student, student).identity()))
    return Lineage(
        version=IMPORTED,
        parent=None,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        student=replace(record, start=initial_weights_of(project, entry.config)),
        teachers=(),
        recipe=recipe,
        data=DataRecord(
            samples={},
            known=tuple(sorted(scores.domains)),
            fresh=0,
            replayed=0,
            skipped_samples=0,
            domains_without_teacher=(),
            domains_without_rehearsal=(),
        ),
        training=TrainingRecord(
            steps=0,
            batch_size=0,
            lr=0.0,
            seed=imported.seed,
            previous=None,
            seconds=0.0,
            machine=Machine(processes=1, device=device, precision=PRECISION, building_seconds=0.0),
            log=(),
            digest=digest,
        ),
        environment=describe_software(project),
        scores=scores,
        imported=imported,
    )
