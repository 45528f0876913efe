"""Retention: change of accuracy between two versions, per domain and per teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from pydantic import TypeAdapter

from kdkit.core.contracts import DomainScore
from kdkit.core.evaluation.metrics import mean_interval, paired_difference
from kdkit.core.evaluation.scores import Evaluation, ModelScores, null_to_nan, to_plain
from kdkit.core.project.lineage import DomainChange, TeacherRetention

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
        not_compared: requested domains that one of the evaluations did not score.
        mean: mean change over ``domains`` in points, with ``low`` and ``high``; NaN without any.
        metric: what was compared.
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
) -> Retention:
    """Compare the student of two evaluations, sample by sample.

    Args:
        before, after: each with per-sample outcomes of ``metric``; samples are matched by id.
        student: names of the model in ``before`` and ``after``; by default the first student of each.
        tolerance: points that any domain may lose; ``tolerances`` overrides it per domain.
        trusted: teacher -> domains in which it may teach; its accuracy is read from ``after``, else ``before``.
        domains: the domains to compare, such as those taught before the increment; by default all of ``before``.
    """
    names = student or (before.of_role("student")[0].name, after.of_role("student")[0].name)
    old, new = before.model(names[0]), after.model(names[1])
    limits = dict(tolerances or {})
    changes = {}
    wanted = tuple(old.domains) if domains is None else tuple(domains)
    for domain in (d for d in wanted if d in old.domains and d in new.domains):
        change = _change(old.domains[domain], new.domains[domain], metric, limits.get(domain, tolerance))
        if change is not None:
            changes[domain] = change
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
        not_compared=tuple(d for d in wanted if d not in changes),
        mean=mean,
        low=low,
        high=high,
        metric=metric,
    )


def _change(before: DomainScore, after: DomainScore, metric: str, tolerance: float) -> DomainChange | None:
    if metric not in before.outcomes or metric not in after.outcomes:
        return None
    earlier = dict(zip(before.ids, before.outcomes[metric], strict=True))
    later = dict(zip(after.ids, after.outcomes[metric], strict=True))
    shared = [name for name in earlier if name in later]
    if not shared:
        return None
    x = np.array([earlier[name] for name in shared])
    y = np.array([later[name] for name in shared])
    points, low, high = (100 * value for value in paired_difference(x, y, level=after.level))
    return DomainChange(
        domain=after.domain,
        before=float(x.mean()),
        after=float(y.mean()),
        points=points,
        low=low,
        high=high,
        count=len(shared),
        tolerance=tolerance,
        over_tolerance=points < -tolerance - _ROUNDING,
        significant=high < 0,
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
    used = [c for c in changes if scores is not None and c.domain in scores.domains]
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
