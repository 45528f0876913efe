"""The trust report of a project: measured accuracy, and which teacher each policy lets teach which domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kdkit.core.base.cells import Shade, shades
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.result import Result, Section, Table
from kdkit.core.contracts import Reporter, Silent, TrustBasis, TrustPolicySpec, TrustTable
from kdkit.core.data.load import load_index
from kdkit.core.evaluation.evaluator import make_evaluator
from kdkit.core.evaluation.report.tables import accuracy_title, count_unit
from kdkit.core.evaluation.trust.measure import choose_basis, measure_trust, read_sample_scores
from kdkit.core.evaluation.trust.measurements import load_measurements, trust_file
from kdkit.core.evaluation.trust.probe import LACKS, PROBES, SHOTS
from kdkit.core.evaluation.trust.retrieval import OTHERS
from kdkit.core.evaluation.trust.weights import (
    DomainWithoutTeacher,
    SampleScores,
    TeacherWithoutDomain,
    TrustGate,
    TrustWeights,
    domains_without_teacher,
    only_captions,
    teachers_without_domain,
    without_captions,
)
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.missing import extract_calibration, extraction_hint
from kdkit.core.project.recipe import learns_alone, teaching_stage
from kdkit.core.project.recipe_file import load_recipe
from kdkit.core.project.registry.schema import TrustBy, TrustEntry

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.project.project import Project
    from kdkit.core.project.registry.schema import Registry

PROBE = "probe"
LEAST_WEIGHT = 0.005
"""Smaller weights would print as 0.00 and are left out."""


@dataclass(frozen=True)
class PolicyOutcome:
    """The weights that one policy gives.

    Attributes:
        policy, options: its name and all of its options.
        weights: of teachers and captions, in [0, 1]; 0: may not teach there.
        weighs_captions: whether the policy weighs captions; if not, their weight is 1.
        domains_without_teacher, teachers_without_domain: rows and columns of zeros, with reasons.
    """

    policy: str
    options: Mapping[str, Any]
    weights: TrustWeights
    weighs_captions: bool
    domains_without_teacher: tuple[DomainWithoutTeacher, ...]
    teachers_without_domain: tuple[TeacherWithoutDomain, ...]

    @property
    def title(self) -> str:
        """``threshold (value 0.7, on accuracy)``; options that are False are left out."""
        values = ", ".join(f"{name} {value}" for name, value in self.options.items() if value is not False)
        return f"{self.policy} ({values})" if values else self.policy


@dataclass(frozen=True)
class TrustReport(Result):
    """Measured trust, the chosen policy's outcome, and those of other policies for comparison.

    Attributes:
        table: of the teachers.
        captions: a table of one row, where a loss of the recipe learns from them and labels measure them.
        task: name of the evaluation task that measured ``table``.
    """

    table: TrustTable
    chosen: PolicyOutcome
    others: tuple[PolicyOutcome, ...]
    task: str
    captions: TrustTable | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data; NaN is left to the writer."""
        table = self.table
        return {
            "level": table.level,
            "by": table.by,
            "domains": [
                {"domain": domain, "count": int(table.count[m]), "chance": float(table.chance[m])}
                for m, domain in enumerate(table.domains)
            ],
            "teachers": [
                {
                    "teacher": teacher,
                    "kind": self._kind(teacher),
                    "domains": _scores(table, t),
                    **(
                        {"signal": table.probed[teacher], "probes": table.parts[teacher]}
                        if self._probed(teacher)
                        else {}
                    ),
                }
                for t, teacher in enumerate(table.teachers)
            ],
            "captions": _scores(self.captions, 0) if self.captions else {},
            "policy": self._outcome_json(self.chosen),
            "other_policies": [self._outcome_json(other) for other in self.others],
        }

    def sections(self) -> list[Section]:
        """Accuracy per domain and teacher, then the teachers that each policy admits."""
        table, weights, outcomes = self.table, self.chosen.weights, (self.chosen, *self.others)
        shade = _shades(table)
        accuracy = [
            (
                domain,
                *(
                    Shade(
                        _accuracy_cell(table, t, m, weights.teachers[t, m]),
                        shade[t, m],
                        weights.teachers[t, m] >= LEAST_WEIGHT,
                    )
                    for t in range(len(table.teachers))
                ),
                *([_accuracy_cell(self.captions, 0, m, weights.captions[m])] if self.captions else []),
                _percent(table.chance[m]),
                str(table.count[m]),
            )
            for m, domain in enumerate(table.domains)
        ]
        admitted = [
            (domain, *(self._admitted_cell(outcome, m) for outcome in outcomes))
            for m, domain in enumerate(table.domains)
        ]
        titles = [f"{name} ({PROBE})" if name in table.probed else name for name in table.teachers]
        names = [*titles, "captions"] if self.captions else titles
        headers = ("domain", *names, "chance", "samples" if table.by == "list" else count_unit(self.task))
        weight = "mean weight of its samples" if weights.samples is not None else "weight"
        return [
            f"{self._title}, {100 * table.level:g} % interval; * may teach by {self.chosen.title}",
            Table(headers, accuracy, "l" + "l" * len(names) + "rr"),
            *self._probes(),
            "",
            f"Teachers that each policy admits ({weight} where it is not 1)",
            Table(("domain", f"{self.chosen.policy} *", *(other.policy for other in self.others)), admitted),
            "* " + ", ".join(outcome.title for outcome in outcomes),
        ]

    @property
    def _title(self) -> str:
        if self.table.by == "caption":
            return f"True caption ranked before {OTHERS} others of the domain, in % of the calibration split"
        if self.table.by == "list":
            return "Samples on the imported list of the teacher, in % of all splits"
        return f"{accuracy_title(self.task)} in % on the calibration split"

    def _probes(self) -> list[Section]:
        """How teachers of one signal were measured, and what each classifier found."""
        table = self.table
        if not table.probed:
            return []
        signals = dict.fromkeys(table.probed.values())
        missing = "; ".join(
            f"{', '.join(name for name, own in table.probed.items() if own == signal)} without {LACKS[signal]} features"
            for signal in signals
        )
        rows = [
            (name, table.probed[name], domain, *(_percent(found[probe]) for probe in PROBES))
            for name, domains in table.parts.items()
            for domain, found in domains.items()
        ]
        return [
            f"{PROBE}: {missing}; mean of two classifiers with {SHOTS} labels per class, cross-fitted on the "
            "calibration split",
            *([Table(("teacher", "signal", "domain", *PROBES), rows, "lllrr")] if rows else []),
        ]

    def _kind(self, teacher: str) -> str:
        if self.table.by != "label":
            return self.table.by
        return PROBE if self._probed(teacher) else self.task

    def _probed(self, teacher: str) -> bool:
        return teacher in self.table.probed

    def _outcome_json(self, outcome: PolicyOutcome) -> dict[str, Any]:
        return {
            "policy": outcome.policy,
            "options": dict(outcome.options),
            "weights": {
                teacher: dict(zip(self.table.domains, row.tolist(), strict=True))
                for teacher, row in zip(self.table.teachers, outcome.weights.teachers, strict=True)
            },
            "captions": dict(zip(self.table.domains, outcome.weights.captions.tolist(), strict=True)),
            "domains_without_teacher": [
                {"domain": gap.domain, "message": gap.message} for gap in outcome.domains_without_teacher
            ],
            "teachers_without_domain": [
                {"teacher": gap.teacher, "message": gap.message} for gap in outcome.teachers_without_domain
            ],
        }

    def _admitted_cell(self, outcome: PolicyOutcome, m: int) -> str:
        teachers, weights = list(self.table.teachers), outcome.weights.teachers[:, m].tolist()
        if len(teachers) > 1 and min(weights) == 1:
            return f"all {len(teachers)}"
        if outcome.weighs_captions:
            teachers, weights = [*teachers, "captions"], [*weights, outcome.weights.captions[m]]
        names = [
            name if weight >= 0.995 else f"{name} {weight:.2f}"
            for name, weight in zip(teachers, weights, strict=True)
            if weight >= LEAST_WEIGHT
        ]
        return ", ".join(names) or "none"


def report_trust(
    project: Project,
    policy: str | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    by: TrustBasis | None = None,
    per: Literal["domain", "sample"] | None = None,
    index: SampleIndex | None = None,
    device: str | None = None,
    reporter: Reporter | None = None,
) -> TrustReport:
    """Measure trust where it is not measured yet, and apply all policies.

    Args:
        policy, options: override those of the registry or its recipe; ``options`` alone change the project's policy.
        by, per: override those of the registry or its recipe.
        index: the project's samples, if they are loaded already.
        device: of an extraction of missing calibration samples; None for stored features only.

    Raises:
        KdkitError: no teacher with features; an unknown policy or option.
    """
    reporter = reporter or Silent()
    registry, catalogue = project.registry, project.catalogue
    table = load_index(project, reporter) if index is None else index
    store = FeatureStore(project.features)
    if device is not None:
        extract_calibration(project, table, device=device, reporter=reporter)
    evaluator = make_evaluator(registry, catalogue, table)
    recipe = teaching_stage(load_recipe(registry.recipe, catalogue, project.root).changed_by(registry), catalogue)
    basis = _chosen_basis(recipe.trust, by, per)
    measure_by = choose_basis(basis.by, evaluator, reporter)
    known = {*store.teachers, *load_measurements(trust_file(store.root), measure_by)}
    teachers = [name for name in registry.teachers if name in known]
    for name in registry.teachers:
        if name not in known:
            reporter.warn(
                f"teacher '{name}' has no features yet; {extraction_hint(project.registry, project.lock, name)}"
            )
    if not teachers:
        fix = "add teachers ('kdkit add-teacher NAME'), then run 'kdkit features extract'"
        if first := next(iter(registry.teachers), ""):
            fix = extraction_hint(registry, project.lock, first)
        raise KdkitError(
            "KD-TRUST-001",
            "no teacher has features, so trust cannot be measured",
            where=str(project.features),
            fix=fix,
            code=ExitCode.MISSING,
        )
    measured = measure_trust(
        evaluator,
        store,
        project.lock,
        teachers,
        advice=partial(extraction_hint, project.registry, project.lock),
        captions=learns_alone(recipe, catalogue),
        by=measure_by,
        every_sample=basis.per_sample,
        reporter=reporter,
    )
    samples = read_sample_scores(evaluator, store, project.lock, measured, reporter) if basis.per_sample else None
    own = only_captions(measured) if measured.by == "label" else None
    if own is not None and np.isnan(own.accuracy).all():
        reporter.say("captions are measured once training samples have features: 'kdkit features extract' or 'distill'")
    name, chosen = _chosen_policy(recipe.trust, catalogue, policy, options or {})
    others = [
        (spec.name, dict(spec.options))
        for spec in catalogue.specs(TrustPolicySpec)
        if (spec.name, dict(spec.options)) != (name, chosen)
    ]
    outcomes = [_apply_policy(registry, catalogue, measured, samples, *each) for each in ((name, chosen), *others)]
    task = str(evaluator.settings["task"])
    return TrustReport(without_captions(measured), outcomes[0], tuple(outcomes[1:]), task, own)


def _chosen_basis(entry: TrustEntry, by: TrustBasis | None, per: Literal["domain", "sample"] | None) -> TrustBy:
    if by == "list" and per == "domain":
        raise KdkitError("KD-TRUST-006", "trust by lists is per sample", where="trust.per", fix="leave 'per' out")
    if by is not None and by != entry.by:
        return TrustBy(by=by, per=per or (None if by == "list" else entry.per))
    return TrustBy(by=entry.by, per=per or entry.per)


def _chosen_policy(
    entry: TrustEntry, catalogue: Catalogue, policy: str | None, options: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    name, own = (entry.policy, entry.options) if policy in (None, entry.policy) else (str(policy), {})
    return name, {**catalogue.spec(TrustPolicySpec, name).options, **own, **options}


def _apply_policy(
    registry: Registry,
    catalogue: Catalogue,
    table: TrustTable,
    samples: SampleScores | None,
    name: str,
    options: Mapping[str, Any],
) -> PolicyOutcome:
    limits = {teacher: entry.domains for teacher, entry in registry.teachers.items() if entry.domains is not None}
    weighs, made = catalogue.spec(TrustPolicySpec, name).weighs_captions, catalogue.make("policy", name, **options)
    weights, teachers = TrustGate(table, made, limits, weighs, samples).weights(), without_captions(table)
    gaps = (
        domains_without_teacher(teachers, weights.teachers, limits),
        teachers_without_domain(teachers, weights.teachers, limits),
    )
    return PolicyOutcome(name, dict(options), weights, weighs, *gaps)


def _scores(table: TrustTable, row: int) -> dict[str, dict[str, float]]:
    bounds = {"accuracy": table.accuracy[row], "lower": table.lower[row], "upper": table.upper[row]}
    return {
        domain: {name: float(values[m]) for name, values in bounds.items()} for m, domain in enumerate(table.domains)
    }


def _accuracy_cell(table: TrustTable, row: int, m: int, weight: float) -> str:
    if np.isnan(table.accuracy[row, m]):
        return "-"
    low, high = _percent(table.lower[row, m]), _percent(table.upper[row, m])
    return f"{_percent(table.accuracy[row, m])} ({low}-{high})" + (" *" if weight >= LEAST_WEIGHT else "")


def _shades(table: TrustTable) -> np.ndarray[Any, Any]:
    """(T, M) place of each accuracy between the lowest and the highest."""
    return np.array(shades(table.accuracy.ravel().tolist())).reshape(table.accuracy.shape)


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.0f}"
