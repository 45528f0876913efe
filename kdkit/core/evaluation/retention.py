"""Retention: change of accuracy between two versions, per domain, per subgroup and per teacher.

The bootstrap draws samples, or whole groups (patients) where the later evaluation knows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from pydantic import TypeAdapter

from kdkit.core.contracts import DomainScore
from kdkit.core.evaluation.metrics import UNKNOWN, interval, mean_interval, paired_difference
from kdkit.core.evaluation.scores import Evaluation, ModelScores, null_to_nan, to_plain
from kdkit.core.evaluation.scoring import LEAST
from kdkit.core.project.lineage import DomainChange, TeacherRetention

Array = np.ndarray[Any, Any]
TOLERANCE = 1.0
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Retention:
    """The comparison that the promotion guard reads.

    Attributes:
        domains: domain -> change, for domains that both evaluations scored on some shared samples.
        teachers: teacher -> retention; only for teachers with a trusted domain among ``domains``.
        over_tolerance: domains that lost more than their tolerance, worst first.
        new_domains: domains of the later evaluation alone.
        not_compared: requested domains that one of the evaluations did not score, or whose metric cannot be paired; and
            ``xray, sex`` for the subgroups of a domain whose metric has no outcomes.
        mean: mean change over ``domains`` in points, with ``low`` and ``high``; NaN without any.
        metric: what was compared.
        checks: comparisons beside the domains: subgroups, and metrics of other tasks.
    """

    domains: Mapping[str, DomainChange]
    teachers: Mapping[str, TeacherRetention]
    over_tolerance: tuple[str, ...]
    new_domains: tuple[str, ...]
    not_compared: tuple[str, ...]
    mean: float
    low: float
    high: float
    metric: str
    checks: tuple[DomainChange, ...] = ()

    @property
    def worst(self) -> DomainChange | None:
        """The domain that lost most (or gained least)."""
        return min(self.domains.values(), key=lambda change: change.points, default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain data; NaN becomes null."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        bounds = {name: null_to_nan(data[name]) for name in ("mean", "low", "high")}
        return TypeAdapter(cls).validate_python({**data, **bounds})


def measure_retention(
    before: Evaluation,
    after: Evaluation,
    *,
    student: tuple[str, str] | None = None,
    tolerance: float = TOLERANCE,
    tolerances: Mapping[str, float] | None = None,
    trusted: Mapping[str, Sequence[str]] | None = None,
    domains: Sequence[str] | None = None,
    metric: str = "accuracy",
    by: Mapping[str, float] | None = None,
) -> Retention:
    """Compare the student of two evaluations, sample by sample.

    Args:
        before, after: each with per-sample outcomes of ``metric``; samples are matched by id. Metrics without
            outcomes, such as AUC, are compared by their bootstrap draws, if both are of the same samples.
        student: names of the model in ``before`` and ``after``; by default the first student of each.
        tolerance: points that any domain may lose; ``tolerances`` overrides it per domain.
        trusted: teacher -> domains in which it may teach; its accuracy is read from ``after``, else ``before``.
        domains: the domains to compare, such as those taught before the increment; by default all of ``before``.
        by: column of ``after`` -> points that any of its subgroups may lose.
    """
    names = student or (before.of_role("student")[0].name, after.of_role("student")[0].name)
    old, new = before.model(names[0]), after.model(names[1])
    limits = dict(tolerances or {})
    changes = {}
    wanted = tuple(old.domains) if domains is None else tuple(domains)
    checks: list[DomainChange] = []
    unpaired: list[str] = []
    for domain in (d for d in wanted if d in old.domains and d in new.domains):
        groups = after.groups.get(domain)
        pair = _Pair(old.domains[domain], new.domains[domain], metric, groups)
        change = pair.change(limits.get(domain, tolerance))
        if change is not None:
            changes[domain] = change
        for column, limit in (by or {}).items():
            values = after.columns.get(column, {}).get(domain, ())
            if change is not None and not pair.has_outcomes and any(value is not None for value in values):
                unpaired.append(f"{domain}, {column}")
            checks += pair.subgroups(column, values, limit)
    over = sorted((c for c in changes.values() if c.over_tolerance), key=lambda c: c.points)
    mean, low, high = _mean_change(list(changes.values()))
    held = [
        _teacher(name, [changes[d] for d in taught if d in changes], (after, before), metric)
        for name, taught in (trusted or {}).items()
    ]
    return Retention(
        domains=changes,
        teachers={item.teacher: item for item in held if item is not None},
        over_tolerance=tuple(change.domain for change in over),
        new_domains=tuple(d for d in new.domains if d not in wanted),
        not_compared=(*(d for d in wanted if d not in changes), *unpaired),
        mean=mean,
        low=low,
        high=high,
        metric=metric,
        checks=tuple(checks),
    )


@dataclass(frozen=True)
class _Pair:
    """One domain before and after; ``groups`` are those of ``after.ids``."""

    before: DomainScore
    after: DomainScore
    metric: str
    groups: tuple[int, ...] | None

    @property
    def has_outcomes(self) -> bool:
        """Whether the metric is a mean over samples, so that any part of them can be compared."""
        return self.metric in self.before.outcomes and self.metric in self.after.outcomes

    def change(self, tolerance: float) -> DomainChange | None:
        """On all shared samples; None if there is none, or no way to pair the metric."""
        if self.has_outcomes:
            return self._of_rows(np.arange(len(self.after.ids)), tolerance)
        draws = [score.draws.get(self.metric) for score in (self.before, self.after)]
        if (
            draws[0] is None
            or draws[1] is None
            or draws[0].shape != draws[1].shape
            or self.before.ids != self.after.ids
        ):
            return None
        before, after = (score.metrics[self.metric] for score in (self.before, self.after))
        difference = draws[1] - draws[0]
        known = difference[~np.isnan(difference)]
        alone = (self.after.groups or len(self.after.ids)) < 2
        low, high = UNKNOWN if alone or not len(known) else interval(known, self.after.level)
        return self._record((before, after), (after - before, low, high), len(self.after.ids), tolerance)

    def subgroups(self, column: str, values: Sequence[str | None], tolerance: float) -> list[DomainChange]:
        """A change per value of a column that enough samples have; ``values`` are those of ``after.ids``."""
        found = []
        for value in sorted({value for value in values if value is not None}):
            rows = np.array([row for row, own in enumerate(values) if own == value])
            change = self._of_rows(rows, tolerance, f"{column} {value}")
            if change is not None and (change.groups or change.count) >= LEAST:
                found.append(change)
        return found

    def _of_rows(self, rows: Array, tolerance: float, subgroup: str = "") -> DomainChange | None:
        if not self.has_outcomes:
            return None
        earlier = dict(zip(self.before.ids, self.before.outcomes[self.metric], strict=True))
        shared = [row for row in rows.tolist() if self.after.ids[row] in earlier]
        if not shared:
            return None
        x = np.array([earlier[self.after.ids[row]] for row in shared], dtype=np.float64)
        y = np.asarray(self.after.outcomes[self.metric], dtype=np.float64)[shared]
        groups = None if self.groups is None else np.unique(np.array(self.groups)[shared], return_inverse=True)[1]
        found = paired_difference(x, y, level=self.after.level, groups=groups)
        number = 0 if groups is None or groups.max() + 1 == len(shared) else int(groups.max()) + 1
        return self._record((x.mean(), y.mean()), found, len(shared), tolerance, subgroup, number)

    def _record(
        self,
        values: tuple[float, float],
        difference: tuple[float, float, float],
        count: int,
        tolerance: float,
        subgroup: str = "",
        groups: int | None = None,
    ) -> DomainChange:
        points, low, high = (100 * value for value in difference)
        return DomainChange(
            domain=self.after.domain,
            before=float(values[0]),
            after=float(values[1]),
            points=points,
            low=low,
            high=high,
            count=count,
            tolerance=tolerance,
            over_tolerance=points < -tolerance - _ROUNDING,
            significant=high < 0,
            subgroup=subgroup,
            groups=self.after.groups if groups is None else groups,
        )


def _mean_change(changes: Sequence[DomainChange]) -> tuple[float, float, float]:
    if not changes:
        return (float("nan"),) * 3
    return mean_interval(
        np.array([c.points for c in changes]),
        np.array([c.low for c in changes]),
        np.array([c.high for c in changes]),
    )


def _teacher(
    name: str, changes: Sequence[DomainChange], sources: Sequence[Evaluation], metric: str
) -> TeacherRetention | None:
    scores = next((m for e in sources for m in e.of_role("teacher") if m.name == name), None)
    used = [c for c in changes if scores is not None and metric in getattr(scores.domains.get(c.domain), "metrics", ())]
    if scores is None or not used:
        return None
    whole = _teacher_total(scores, used, metric)
    if not whole > 0:
        return None
    share = np.full(len(used), 1 / (100 * whole))
    change, low, high = mean_interval(
        np.array([c.points for c in used]),
        np.array([c.low for c in used]),
        np.array([c.high for c in used]),
        share,
    )
    return TeacherRetention(
        teacher=name,
        domains=tuple(c.domain for c in used),
        before=sum(c.before for c in used) / whole,
        after=sum(c.after for c in used) / whole,
        change=change,
        low=low,
        high=high,
    )


def _teacher_total(scores: ModelScores, changes: Sequence[DomainChange], metric: str) -> float:
    return sum(scores.domains[c.domain].metrics[metric] for c in changes)
