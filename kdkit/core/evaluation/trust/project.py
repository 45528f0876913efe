"""A project's trust: what was measured, and whom each policy would let teach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Reporter, Silent, TrustTable
from kdkit.core.data.load import load_index
from kdkit.core.evaluation.trust.measure import measure_trust
from kdkit.core.evaluation.trust.saved import load_measured
from kdkit.core.evaluation.trust.weights import Idle, Uncovered, idle_teachers, policy_weights, uncovered_domains
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.advice import who_adds
from kdkit.core.project.recipe import load_recipe

if TYPE_CHECKING:
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class Admission:
    """What one policy makes of the trust table.

    Attributes:
        policy, options: its name and all of its options.
        weights: (T, M).
        uncovered, idle: who is left out.
    """

    policy: str
    options: Mapping[str, Any]
    weights: np.ndarray[Any, Any]
    uncovered: tuple[Uncovered, ...]
    idle: tuple[Idle, ...]


@dataclass(frozen=True)
class TrustFindings:
    """The table, the policy that the project uses (or that was asked for), and the others for comparison."""

    table: TrustTable
    chosen: Admission
    others: tuple[Admission, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data; NaN is left to the writer."""
        table = self.table
        return {
            "level": table.level,
            "domains": [
                {"domain": domain, "count": int(table.count[m]), "chance": float(table.chance[m])}
                for m, domain in enumerate(table.domains)
            ],
            "teachers": [
                {
                    "teacher": teacher,
                    "domains": {
                        domain: {
                            "accuracy": float(table.accuracy[t, m]),
                            "lower": float(table.lower[t, m]),
                            "upper": float(table.upper[t, m]),
                        }
                        for m, domain in enumerate(table.domains)
                    },
                }
                for t, teacher in enumerate(table.teachers)
            ],
            "policy": self._admission(self.chosen),
            "other_policies": [self._admission(other) for other in self.others],
        }

    def _admission(self, admission: Admission) -> dict[str, Any]:
        return {
            "policy": admission.policy,
            "options": dict(admission.options),
            "weights": {
                teacher: dict(zip(self.table.domains, row.tolist(), strict=True))
                for teacher, row in zip(self.table.teachers, admission.weights, strict=True)
            },
            "uncovered": [{"domain": gap.domain, "message": gap.message} for gap in admission.uncovered],
            "idle": [{"teacher": gap.teacher, "message": gap.message} for gap in admission.idle],
        }


def project_trust(
    project: Project,
    policy: str | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    reporter: Reporter | None = None,
) -> TrustFindings:
    """Measure what is not measured yet, and apply policies.

    Args:
        policy, options: instead of those of the registry or its recipe; ``options`` alone change the project's.

    Raises:
        KdkitError: no teacher with features; an unknown policy or option.
    """
    reporter = reporter or Silent()
    table = load_index(project, reporter)
    store = FeatureStore(project.features)
    known = {*store.teachers, *load_measured(project)}
    teachers = [name for name in project.registry.teachers if name in known]
    for name in project.registry.teachers:
        if name not in known:
            reporter.warn(f"teacher '{name}' has no features yet; {who_adds(project, name)}")
    if not teachers:
        first = "" if project.registry.teachers else "add teachers ('kdkit add-teacher NAME'), then "
        raise KdkitError(
            "KD-TRUST-001",
            "no teacher has features, so there is nothing to measure trust on",
            where=str(project.features),
            fix=f"{first}run 'kdkit features extract'",
            code=ExitCode.MISSING,
        )
    measured = measure_trust(project, table, store, teachers, reporter=reporter)
    name, chosen = _chosen(project, policy, options or {})
    others = [
        (spec.name, dict(spec.options))
        for spec in (entry.spec for entry in project.catalogue.entries("policy"))
        if (spec.name, dict(spec.options)) != (name, chosen)
    ]
    admit = _Admit(project, measured)
    return TrustFindings(measured, admit(name, chosen), tuple(admit(*other) for other in others))


def _chosen(project: Project, policy: str | None, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    registry = project.registry
    entry = registry.trust or load_recipe(registry.recipe, project.catalogue, project.root).trust
    name, own = (entry.policy, entry.options) if policy in (None, entry.policy) else (str(policy), {})
    return name, {**project.catalogue.get("policy", name).spec.options, **own, **options}


@dataclass(frozen=True)
class _Admit:
    project: Project
    table: TrustTable

    def __call__(self, name: str, options: Mapping[str, Any]) -> Admission:
        entries = self.project.registry.teachers
        limits = {teacher: entry.domains for teacher, entry in entries.items() if entry.domains is not None}
        policy = self.project.catalogue.make("policy", name, **options)
        weights = policy_weights(self.table, policy, limits=limits)
        gaps = uncovered_domains(self.table, weights, limits), idle_teachers(self.table, weights, limits)
        return Admission(name, dict(options), weights, *gaps)
