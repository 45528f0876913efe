"""After training: what is kept, how it scores, whether it may be promoted, and the version it becomes."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import Tensor, nn

import kdkit
from kdkit.core.base.jsonl import write_rows
from kdkit.core.contracts import Reporter, Student
from kdkit.core.distill.loop.checkpoint import Progress, task_tensors
from kdkit.core.distill.model.build import TASK_FILE
from kdkit.core.distill.model.task import DistillTask
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.plan.types import Plan, PlannedTeacher
from kdkit.core.evaluation.compare import compare_models
from kdkit.core.evaluation.evaluator import make_evaluator
from kdkit.core.evaluation.guard import Verdict, apply_guard
from kdkit.core.evaluation.retention import Retention, measure_retention
from kdkit.core.evaluation.scores import Evaluation
from kdkit.core.features.extract.missing import extraction_hint
from kdkit.core.project.licenses import LicenseFacts
from kdkit.core.project.lineage import (
    CorrectionRecord,
    CorrectionRound,
    DataRecord,
    Environment,
    GuardRecord,
    Lineage,
    Machine,
    RetentionRecord,
    Scores,
    StudentRecord,
    TeacherRecord,
    TrainingRecord,
    TrustScore,
)
from kdkit.core.project.registry.chosen import chosen_teacher
from kdkit.core.project.registry.lock import LockedTeacher
from kdkit.core.project.versions import CORRECTIONS, LINEAGE, Version, Versions, load_student

if TYPE_CHECKING:
    from kdkit.core.distill.correction.loader import Corrections
    from kdkit.core.project.project import Project

EVALUATION_FILE = "evaluation.json"
STUDENT = "student"


@dataclass(frozen=True)
class Outcome:
    """What a run made.

    Attributes:
        version: the new version, promoted or kept aside.
        evaluation: on the calibration split, student and teachers.
        retention, verdict: against the parent; None for the first version.
    """

    version: Version
    evaluation: Evaluation
    retention: Retention | None
    verdict: Verdict | None


def interpolate(student: nn.Module, previous: Sequence[Tensor], kept: float) -> None:
    """Weights := (1 - kept) previous + kept trained, in place (WiSE-FT, arXiv 2109.01903, eq. 1)."""
    with torch.no_grad():
        for trained, before in zip(student.parameters(), previous, strict=True):
            trained.lerp_(before.to(trained), 1 - kept)


def promote(
    project: Project,
    plan: Plan,
    inventory: TeachingInventory,
    task: DistillTask,
    parent: Version | None,
    progress: Progress,
    *,
    machine: Machine,
    corrections: Corrections | None = None,
    reporter: Reporter,
) -> Outcome:
    """Evaluate the trained student on the calibration split, judge it against ``parent``, write the version.

    ``machine`` goes into the lineage; the corrections of the run become a file of the version.

    The guard reads the calibration split; the test split stays untouched until ``kdkit evaluate``.
    """
    reporter.say("evaluating on the calibration split")
    evaluation = evaluate_student(project, inventory, task.student, reporter)
    kept, verdict = None, None
    if parent is not None:
        before = _before(project, inventory, parent, evaluation, reporter)
        guard = project.registry.guard
        kept = measure_retention(
            before,
            evaluation,
            tolerance=guard.tolerance,
            tolerances=guard.domains,
            trusted={teacher.name: tuple(teacher.admitted) for teacher in plan.teachers},
            domains=sorted(known_domains(parent)),
        )
        verdict = apply_guard(kept, guard)
    versions = Versions(project)
    name, refused = versions.next_name(), verdict is not None and not verdict.promoted
    lineage = replace(
        _lineage(project, plan, inventory, task, parent, progress, name, machine, _scores(evaluation)),
        retention=None if kept is None else _retention(kept, verdict),
        correction=None if corrections is None else _correction(project, plan, corrections),
    )
    with versions.writing(name, refused=refused) as folder:
        _write(folder, task, lineage, evaluation, _known(plan, inventory, parent))
        if corrections is not None:
            write_rows(folder / CORRECTIONS, corrections.rows)
    if not refused:
        versions.make_current(name)
    return Outcome(versions.get(name), evaluation, kept, verdict)


def _before(
    project: Project, inventory: TeachingInventory, parent: Version, after: Evaluation, reporter: Reporter
) -> Evaluation:
    """How the parent did on the samples of ``after``.

    What is saved with it counts where it was scored on these very samples. A version that was pulled has nothing
    saved, and the data of a project may have changed since: then the parent answers again.
    """
    path = parent.folder / EVALUATION_FILE
    if path.is_file():
        before = Evaluation.load(path)
        if all(_samples(before, domain) == _samples(after, domain) for domain in known_domains(parent)):
            return before
    reporter.say(f"evaluating {parent.name} on the same calibration samples")
    student = cast(nn.Module, load_student(parent, project.catalogue))
    return evaluate_student(project, inventory, student, reporter, teachers=False)


def _samples(evaluation: Evaluation, domain: str) -> tuple[str, ...]:
    """Ids of the samples on which the student was scored; empty where it was not."""
    score = evaluation.model(STUDENT).domains.get(domain)
    return () if score is None else score.ids


def evaluate_student(
    project: Project, inventory: TeachingInventory, student: nn.Module, reporter: Reporter, *, teachers: bool = True
) -> Evaluation:
    """The student, and every teacher unless they are not wanted, on the calibration samples that can be judged."""
    evaluator = make_evaluator(project.registry, project.catalogue, inventory.index)
    readable = np.intersect1d(evaluator.rows("calibration"), inventory.rows("calibration"))
    samples = [inventory.index.samples[row] for row in readable]
    asked = inventory.teachers if teachers else ()
    views = [evaluator.teacher(name, inventory.columns[name]) for name in asked]
    live = evaluator.student(STUDENT, student, device=str(next(student.parameters()).device))
    trust = inventory.trust if teachers else None
    return compare_models(
        evaluator.task,
        [live],
        views,
        samples,
        trust=trust,
        advice=partial(extraction_hint, project.registry, project.lock),
        reporter=reporter,
    )


def known_domains(version: Version) -> set[str]:
    """Domains that the version, or one that it comes from, was taught."""
    return set(version.lineage.data.known)


def _taught_domains(plan: Plan, inventory: TeachingInventory) -> set[str]:
    """Domains of the run's samples; those that no teacher may teach only where a loss needs no teacher."""
    present = {inventory.index.domains[d] for pool in plan.pools for d in np.unique(pool.domain)}
    return present if inventory.learns_alone else present - set(plan.domains_without_teacher)


def _write(
    folder: Path,
    task: DistillTask,
    lineage: Lineage,
    evaluation: Evaluation,
    known: np.ndarray[Any, Any],
) -> None:
    student = task.student.to("cpu").eval()
    cast(Student, student).save(folder / "student")
    rest = {name: x for name, x in task_tensors(task).items() if not name.startswith("student.")}
    save_file(rest, folder / TASK_FILE)
    save_arrays({"digests": known.view(np.int64)}, folder / "samples.safetensors")
    evaluation.save(folder / EVALUATION_FILE)
    lineage.save(folder / LINEAGE)


def _known(plan: Plan, inventory: TeachingInventory, parent: Version | None) -> np.ndarray[Any, Any]:
    """(N,) uint64, sorted: digests of all training samples that this version and its parents were taught."""
    taught = np.concatenate([inventory.index.digests[pool.indices] for pool in plan.pools])
    if parent is not None:
        taught = np.concatenate([taught, parent.known_samples()])
    return np.unique(taught)


def _lineage(
    project: Project,
    plan: Plan,
    inventory: TeachingInventory,
    task: DistillTask,
    parent: Version | None,
    progress: Progress,
    name: str,
    machine: Machine,
    scores: Scores,
) -> Lineage:
    entry = project.registry.student
    trust = project.registry.trust or plan.recipe.trust  # as it was, not as the recipe would have it
    return Lineage(
        version=name,
        parent=None if parent is None else parent.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        student=StudentRecord(entry.family, entry.config, dict(cast(Student, task.student).identity())),
        teachers=_teachers(project, plan, inventory, parent, name),
        recipe=plan.recipe.model_copy(update={"trust": trust}),
        data=_data(project, plan, inventory, parent),
        training=TrainingRecord(
            steps=plan.settings.steps,
            batch_size=plan.batch_size,
            lr=plan.settings.lr,
            seed=plan.settings.seed,
            previous=None if parent is None else plan.previous,
            seconds=round(progress.seconds, 3),
            machine=machine,
            log=tuple(progress.log),
            digest=plan.digest,
        ),
        environment=Environment(
            kdkit=kdkit.__version__,
            python=platform.python_version(),
            torch=torch.__version__,
            platform=platform.platform(),
            plugins={r.distribution: r.version for r in project.catalogue.records if r.status == "ok"},
        ),
        scores=scores,
    )


def _data(project: Project, plan: Plan, inventory: TeachingInventory, parent: Version | None) -> DataRecord:
    domains, counts = np.unique(np.concatenate([pool.domain for pool in plan.pools]), return_counts=True)
    inherited = known_domains(parent) if parent else set()
    return DataRecord(
        samples={inventory.index.domains[d]: int(n) for d, n in zip(domains, counts, strict=True)},
        known=tuple(sorted(_taught_domains(plan, inventory) | inherited)),
        fresh=plan.fresh,
        replayed=plan.replayed,
        skipped_samples=plan.skipped_samples,
        domains_without_teacher=plan.domains_without_teacher,
        domains_without_rehearsal=plan.domains_without_rehearsal,
        licenses=tuple(sorted({entry.license for entry in project.registry.data if entry.license})),
    )


def _teachers(
    project: Project, plan: Plan, inventory: TeachingInventory, parent: Version | None, name: str
) -> tuple[TeacherRecord, ...]:
    """Teachers of this run, then those that only earlier versions learned from."""
    inherited = {} if parent is None else {teacher.name: teacher for teacher in parent.lineage.teachers}
    lock = project.lock
    rows = []
    for teacher in plan.teachers:
        known = lock.teacher(teacher.name)
        license = chosen_teacher(project, teacher.name).license_facts(known.license, gated=known.gated)
        since = name if teacher.new else inherited[teacher.name].since
        rows.append(_teacher(known, license, inventory, teacher, since))
    gone = [replace(old, inherited=True) for key, old in inherited.items() if key not in inventory.teachers]
    return (*rows, *gone)


def _teacher(
    facts: LockedTeacher, license: LicenseFacts, inventory: TeachingInventory, teacher: PlannedTeacher, since: str
) -> TeacherRecord:
    trust = inventory.trust
    row = trust.teachers.index(teacher.name)
    return TeacherRecord(
        name=teacher.name,
        fingerprint=teacher.fingerprint,
        source=facts.source,
        commit=facts.commit,
        provider=facts.provider,
        license_facts=license,
        domains=dict(teacher.admitted),
        samples=teacher.samples,
        signals="live" if teacher.live else "stored",
        trust={
            domain: TrustScore(*(_number(scores[row, m]) for scores in (trust.accuracy, trust.lower, trust.upper)))
            for m, domain in enumerate(trust.domains)
        },
        since=since,
    )


def _correction(project: Project, plan: Plan, made: Corrections) -> CorrectionRecord:
    assert plan.correction is not None
    record = CorrectionRecord(
        corrector=plan.correction.corrector,
        file=CORRECTIONS,
        corrected=len(made.rows),
        rounds=tuple(CorrectionRound(**part) for part in made.rounds),
    )
    if not plan.correction.fingerprint:
        return record
    known = project.lock.teacher(plan.correction.corrector)
    license = chosen_teacher(project, plan.correction.corrector).license_facts(known.license, gated=known.gated)
    return replace(record, fingerprint=known.fingerprint, license_facts=license)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)


def _scores(evaluation: Evaluation) -> Scores:
    student = evaluation.model(STUDENT)
    domains = {domain: dict(score.metrics) for domain, score in student.domains.items()}
    return Scores(evaluation.split, dict(student.means), domains)


def _retention(kept: Retention, verdict: Verdict | None) -> RetentionRecord:
    mean, low, high = (None if np.isnan(value) else value for value in (kept.mean, kept.low, kept.high))
    guard = None
    if verdict is not None:
        failed, uncertain = (tuple(c.domain for c in changes) for changes in (verdict.failed, verdict.uncertain))
        guard = GuardRecord(verdict.promoted, failed, uncertain, verdict.mean_failed)
    return RetentionRecord(**{**vars(kept), "mean": mean, "low": low, "high": high}, guard=guard)
