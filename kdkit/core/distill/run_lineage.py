"""The lineage of a run: who taught what, with which data, recipe, settings and software."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

import kdkit
from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import PRECISION, Student
from kdkit.core.distill.guard_tasks import STUDENT
from kdkit.core.distill.loop.sampler import use_of_domains
from kdkit.core.distill.plan.types import Plan
from kdkit.core.distill.trained_run import TrainedRun
from kdkit.core.evaluation.scores import Evaluation
from kdkit.core.plugin_system.installed import BUILT_IN
from kdkit.core.project.licenses import LicenseFacts
from kdkit.core.project.lineage import (
    CorrectionRecord,
    DataRecord,
    Environment,
    Lineage,
    Scores,
    StudentRecord,
    TeacherRecord,
    TrustScore,
)
from kdkit.core.project.on_policy_record import OnPolicyRecord
from kdkit.core.project.registry.chosen import chosen_teacher
from kdkit.core.project.registry.pins import names_of, used_names
from kdkit.core.project.training_record import SkippedStep, StageRecord, TrainingRecord
from kdkit.core.project.versions import CORRECTIONS, Version

if TYPE_CHECKING:
    from kdkit.core.project.project import Project

NOT_JUDGED = Scores("calibration", {}, {})
"""Of the result of a stage."""


def make_lineage(project: Project, run: TrainedRun, name: str, scores: Scores) -> Lineage:
    """The lineage of what a run has trained, without retention and repair.

    Args:
        name: of the version or stage.
    """
    plan, student, after = run.plan, project.registry.student, run.after
    return Lineage(
        version=name,
        parent=plan.parent,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        student=StudentRecord(student.family, student.config, dict(cast(Student, run.task.student).identity())),
        teachers=_teachers(project, run, name),
        recipe=plan.whole_recipe,
        data=_data(project, run),
        training=TrainingRecord(
            steps=plan.settings.steps,
            batch_size=plan.batch_size,
            lr=plan.settings.lr,
            seed=plan.settings.seed,
            previous=plan.previous if plan.increments else None,
            seconds=round(run.progress.seconds, 3),
            machine=run.machine,
            log=tuple(run.progress.log),
            digest=plan.digest,
            skipped=run.progress.skipped,
            skipped_steps=tuple(SkippedStep.from_json(step) for step in run.progress.skipped_steps),
        ),
        environment=describe_software(project, run.plans),
        scores=scores,
        correction=_correction(project, run),
        on_policy=_on_policy(run),
        stages=() if after is None else (*after.lineage.stages, _stage(after, run.earlier[-1])),
    )


def _stage(result: Version, plan: Plan) -> StageRecord:
    """The record of a finished stage."""
    return StageRecord(
        number=1 if plan.stage is None else plan.stage.number,
        name=plan.recipe.name,
        samples={name: use.samples for name, use in use_of_domains(plan).items()},
        teachers=tuple(teacher.name for teacher in plan.teachers if teacher.samples),
        training=result.lineage.training,
    )


def _data(project: Project, run: TrainedRun) -> DataRecord:
    """The samples of all stages, each counted once."""
    plans, index = run.plans, run.inventory.index
    used = np.unique(np.concatenate([plan.samples for plan in plans]))
    fresh = np.unique(np.concatenate([plan.pools[-1].indices for plan in plans]))
    domains, counts = np.unique(index.domain_index[used], return_counts=True)
    drawn = Counter[str]()
    for plan in plans:
        drawn.update({name: use.drawn for name, use in use_of_domains(plan).items()})
    taught = next((plan for plan in reversed(plans) if plan.teachers), run.plan)
    captions = dict(run.plan.captions) if run.inventory.learns_alone else {}
    if not captions and run.after is not None:
        captions = dict(run.after.lineage.data.captions)
    return DataRecord(
        samples={index.domains[d]: int(n) for d, n in zip(domains, counts, strict=True)},
        known=tuple(sorted(run.known_domains)),
        fresh=len(fresh),
        replayed=len(used) - len(fresh),
        skipped_samples=max(len(plan.samples) + plan.skipped_samples for plan in plans) - len(used),
        domains_without_teacher=taught.domains_without_teacher,
        domains_without_rehearsal=tuple(
            name
            for name in run.plan.domains_without_rehearsal
            if all(name in plan.domains_without_rehearsal for plan in plans)
        ),
        licenses=tuple(sorted({entry.license for entry in project.registry.data if entry.license})),
        captions=captions,
        drawn={} if any(plan.correction for plan in plans) else dict(drawn),
    )


def scores_of(evaluation: Evaluation) -> Scores:
    """Metrics of the student, for its lineage."""
    model = evaluation.model(STUDENT)
    domains = {domain: dict(score.metrics) for domain, score in model.domains.items()}
    return Scores("calibration", dict(model.means), domains)


def describe_software(project: Project, plans: Sequence[Plan] = ()) -> Environment:
    """Versions of kdkit, of what it runs on, and of the plugins that the student, and these plans, use."""
    return Environment(
        kdkit=kdkit.__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        platform=f"{platform.system()} {platform.machine()}",
        plugins=_used_plugins(project, plans),
    )


def _used_plugins(project: Project, plans: Sequence[Plan]) -> dict[str, str]:
    """Distribution -> version of those that provide the student, its teachers, and parts of the recipe.

    Others, and sources of data, concern nobody who gets the student.
    """
    teachers = {teacher.name for plan in plans for teacher in plan.teachers}
    used = {BUILT_IN, *(project.lock.teacher(name).provider.partition("@")[0] for name in teachers)}
    names = used_names(project, project.lock, project.registry.recipe)
    for family, name in {*names, *(pair for plan in plans for pair in names_of(plan.recipe))}:
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
    """Teachers of this run, then those that only earlier stages or versions learned from."""
    inherited = {} if run.start is None else {teacher.name: teacher for teacher in run.start.lineage.teachers}
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
            precision=facts.identity.get(PRECISION, ""),
        )
        records.append(record)
    gone = [old for key, old in inherited.items() if key not in run.inventory.teachers]
    if run.after is None:
        return (*records, *(replace(old, inherited=True) for old in gone))
    return (*records, *(replace(old, since=name if old.since == run.after.name else old.since) for old in gone))


def _license_facts(project: Project, teacher: str) -> LicenseFacts:
    locked = project.lock.teacher(teacher)
    return chosen_teacher(project, teacher).license_facts(locked.license, gated=locked.gated)


def _correction(project: Project, run: TrainedRun) -> CorrectionRecord | None:
    """Of the one stage that may have corrected answers."""
    if run.corrections is None:
        return None if run.after is None else run.after.lineage.correction
    schedule = run.plan.correction
    assert schedule is not None
    record = CorrectionRecord(
        corrector=schedule.corrector,
        file=CORRECTIONS,
        corrected=len(run.corrections.rows),
        rounds=run.corrections.rounds,
    )
    if not schedule.fingerprint:
        return record
    fingerprint = project.lock.teacher(schedule.corrector).fingerprint
    return replace(record, fingerprint=fingerprint, license_facts=_license_facts(project, schedule.corrector))


def _on_policy(run: TrainedRun) -> OnPolicyRecord | None:
    """Of the last stage that had own answers."""
    found = [plan.on_policy for plan in run.plans if plan.on_policy is not None]
    return OnPolicyRecord(found[-1].scorers, found[-1].answers, found[-1].drawn) if found else None


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
