"""Plans the correction rounds of a run before it starts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import LossSpec, Reporter
from kdkit.core.distill.plan.types import CorrectionSchedule, Indices, Plan, SamplePool
from kdkit.core.distill.pseudo_labels.corrector import REFERENCE, locked_corrector
from kdkit.core.distill.pseudo_labels.review import is_correctable, make_scoring_task

if TYPE_CHECKING:
    from kdkit.core.data import SampleIndex
    from kdkit.core.project.project import Project
    from kdkit.core.project.recipe import CorrectionPart


def add_correction(project: Project, plan: Plan, index: SampleIndex, reporter: Reporter) -> Plan:
    """The plan with the corrections of its recipe; the corrector's fingerprint is part of the digest.

    Raises:
        KdkitError: a student or corrector that does not answer; an unknown corrector or option; a corrector without a
            loss that learns from texts; no sample with an answer.
    """
    part = plan.recipe.correction
    if part is None:
        return plan
    make_scoring_task(project.registry.student, project.catalogue, part.options)
    locked = locked_corrector(project.registry, project.lock, part.corrector)
    specs = [project.catalogue.spec(LossSpec, loss.name) for loss in plan.recipe.losses]
    if part.corrector != REFERENCE and all(spec.signals for spec in specs):
        raise KdkitError(
            "KD-DIST-008",
            "no loss of the recipe learns from a corrected text",
            where="correction.corrector",
            why="they all compare with teachers, whose signals belong to the texts of the data",
            fix="add a loss without signals (answer-ce), or use 'corrector: reference'",
        )
    schedule = make_correction_schedule(
        part,
        plan.pools,
        index,
        batch_size=plan.batch_size,
        steps=plan.settings.steps,
        seed=plan.settings.seed,
        fingerprint=locked.fingerprint if locked else "",
    )
    if not schedule.steps:
        reporter.warn(f"no correction: the run of {plan.settings.steps} steps ends before the first one")
    digest = hashlib.sha256(f"{plan.digest} {schedule.fingerprint}".encode()).hexdigest()
    return replace(plan, correction=schedule, digest=digest)


def make_correction_schedule(
    part: CorrectionPart,
    pools: Sequence[SamplePool],
    index: SampleIndex,
    *,
    batch_size: int,
    steps: int,
    seed: int,
    fingerprint: str = "",
) -> CorrectionSchedule:
    """The rounds of a run over ``pools``; an epoch is the number of samples divided by the batch size.

    Raises:
        KdkitError: no sample has an answer.
    """
    used = np.unique(np.concatenate([pool.indices for pool in pools]))
    samples: Indices = np.array([row for row in used if is_correctable(index.samples[row])], dtype=np.int64)
    if not len(samples):
        raise KdkitError(
            "KD-DIST-009",
            "no training sample has an answer to compare with",
            where="correction",
            fix="remove 'correction' from the recipe, or add answers to the data",
        )
    epoch = len(used) / batch_size
    every = epoch * (part.every or 1.0)
    regular = (max(1, round(number * every)) for number in range(1, math.ceil(steps / every) + 1))
    per_round = math.ceil(part.share * len(samples))
    return CorrectionSchedule(
        steps=tuple(sorted({step for step in part.steps or regular if step < steps})),
        epoch=epoch,
        samples=samples,
        per_round=per_round if part.limit is None else min(per_round, part.limit),
        corrector=part.corrector,
        fingerprint=fingerprint,
        seed=seed,
    )
