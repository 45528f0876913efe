"""What on-policy distillation needs, checked before an extraction, and how many own answers a run will have."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import LOGPROBS, OWN_ANSWERS, LossSpec, StudentSpec, TaskSpec
from kdkit.core.distill.loop.sampler import use_of_domains
from kdkit.core.distill.plan.types import OnPolicyPlan, Plan
from kdkit.core.features.extract.answers import TOKENS
from kdkit.core.project.recipe import Recipe, signals_read

if TYPE_CHECKING:
    from kdkit.core.distill.plan.inventory import TeachingInventory
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.project.registry.lock import LockedTeacher
    from kdkit.core.project.registry.schema import Registry

WHERE = "on_policy"


def draws_own_answers(recipe: Recipe) -> bool:
    """Whether a run of this recipe has own answers."""
    return recipe.on_policy is not None and recipe.on_policy.share > 0


def require_on_policy(
    recipe: Recipe, catalogue: Catalogue, registry: Registry, teachers: Mapping[str, LockedTeacher]
) -> None:
    """Check, before an extraction, that the student answers, that losses read distributions along any answer, and that
    a teacher is there to give them.

    Raises:
        KdkitError: what is not there, and for each teacher why it cannot score own answers.
    """
    if not draws_own_answers(recipe):
        return
    family = catalogue.spec(StudentSpec, registry.student.family)
    if catalogue.spec(TaskSpec, family.task).reads != "answers":
        raise KdkitError(
            "KD-DIST-440",
            f"a student of family '{family.name}' does not answer, so it cannot learn from its own answers",
            where=f"recipe {recipe.name}, {WHERE}",
            fix="remove 'on_policy' from the recipe, or choose a generating student such as 'clinkd'",
        )
    specs = [catalogue.spec(LossSpec, part.name) for part in recipe.losses]
    if TOKENS not in signals_read(recipe, catalogue):
        raise KdkitError(
            "KD-DIST-441",
            "no loss of the recipe compares distributions along answers",
            where=f"recipe {recipe.name}, {WHERE}",
            why="nothing would be learned from own answers; supervised losses read given answers alone",
            fix="add 'token-kd' or 'uld', or remove 'on_policy'",
        )
    if whole := [spec.name for spec in specs if not spec.per_sample]:
        raise KdkitError(
            "KD-DIST-442",
            f"the loss '{whole[0]}' compares the samples of a batch with each other",
            where=f"recipe {recipe.name}, {WHERE}",
            why="own answers are drawn and scored by each process for its samples alone",
            fix="use losses that are 'per_sample', such as token-kd, uld and answer-ce",
        )
    reasons = {name: _reason(name, facts, registry) for name, facts in teachers.items()}
    if all(reasons.values()):
        raise KdkitError(
            "KD-DIST-443",
            "no teacher can score the student's own answers",
            where=f"recipe {recipe.name}, {WHERE}",
            why=_listed(reasons),
            fix="write 'signals: live' into a teacher's entry in registry.yaml, add one with 'kdkit add-teacher NAME "
            "--live', or remove 'on_policy' from the recipe",
            code=ExitCode.FOUND,
        )


def add_on_policy(recipe: Recipe, plan: Plan, inventory: TeachingInventory) -> Plan:
    """The plan with its own answers. Which teachers are live decides the result, so it is part of the digest.

    Raises:
        KdkitError: no live teacher may teach a sample of the run.
    """
    part = recipe.on_policy
    if part is None or not draws_own_answers(recipe):
        return plan
    signals = {name: {spec.name for spec in inventory.columns[name].signals} for name in inventory.teachers}
    names = [t.name for t in plan.teachers if t.live and t.samples and TOKENS in signals[t.name]]
    domains, rows = inventory.index.domain_index, plan.samples
    able = {name: inventory.taught(name)[rows] for name in names}
    any_able = np.logical_or.reduce([np.zeros(len(rows), dtype=bool), *able.values()])
    if not any_able.any():
        reasons = {t.name: _planned_reason(t.live, TOKENS in signals[t.name]) for t in plan.teachers}
        raise KdkitError(
            "KD-DIST-444",
            "no live teacher may teach any training sample, so none may score the student's own answers",
            where=f"recipe {recipe.name}, {WHERE}",
            why=_listed(reasons),
            fix="'kdkit trust' shows the scores and what each policy would admit; or remove 'on_policy'",
            code=ExitCode.FOUND,
        )
    drawn = {inventory.index.domains.index(name): use.drawn for name, use in use_of_domains(plan).items()}

    def expected(taught: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> int:
        shares = {domain: float(taught[domains[rows] == domain].mean()) for domain in drawn}
        return round(part.share * sum(count * shares[domain] for domain, count in drawn.items()))

    planned = OnPolicyPlan(
        scorers={name: expected(taught) for name, taught in able.items() if taught.any()},
        given_only={
            t.name: "stored" if not t.live else "no distributions along answers"
            for t in plan.teachers
            if t.samples and t.name not in names
        },
        answers=expected(any_able),
        drawn=sum(drawn.values()),
    )
    digest = hashlib.sha256(json.dumps([plan.digest, WHERE, sorted(planned.scorers)]).encode()).hexdigest()
    return replace(plan, on_policy=planned, digest=digest)


def _reason(name: str, facts: LockedTeacher, registry: Registry) -> str:
    """Why a teacher cannot score own answers; empty if it can."""
    if facts.imported:
        return "its features were imported: its model is not here"
    if not facts.signals:
        return "it only answers"
    if facts.identity.get(LOGPROBS) == OWN_ANSWERS:
        return "it has distributions along its own answers alone"
    if TOKENS not in facts.signals:
        return "it gives no distributions along answers"
    return "" if name in registry.live else "its signals are stored"


def _planned_reason(live: bool, tokens: bool) -> str:
    if not live:
        return "stored"
    return "trusted in no domain of the training samples" if tokens else "no distributions along answers"


def _listed(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "no teacher is chosen"
