"""From what a task predicts to the score of a domain: metrics with intervals, over all samples and over subgroups.
Public: tasks of plugins may use it.

The bootstrap draws samples, or whole groups (patients) where they are known, within the classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kdkit.core.contracts import Confusion, DomainScore, Sample, SubgroupScore
from kdkit.core.evaluation.metrics import LEVEL, RESAMPLES, SEED, accuracy, bootstrap, interval
from kdkit.core.evaluation.sampling import sample_groups

Array = np.ndarray[Any, Any]
Integers = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
RowMetric = Callable[[Integers, Array | None], Floats]
"""Rows (n,) of the samples, and how often each is drawn (n, R) or None for once -> (R,); NaN where undefined."""
Subgroups = Mapping[str, Mapping[str, str]]
"""Column -> sample id -> value, in the order in which reports show values; samples without a value are absent."""

FEW = 30
"""With fewer samples, or groups where they are known, a note says that intervals are rough."""
LEAST = 10
"""Samples of a subgroup, or groups where they are known, at least; with fewer it gets no metrics, and that is said."""


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn, and for which subgroups beside all samples."""

    resamples: int = RESAMPLES
    seed: int = SEED
    level: float = LEVEL
    subgroups: Subgroups = field(default_factory=dict)


@dataclass(frozen=True)
class Predicted:
    """What a model predicts for the N samples of a domain, as metrics.

    Attributes:
        strata: (N,) classes within which samples are drawn; zeros for none.
        outcomes: metric -> (N,) value of every sample; the metric is their mean.
        metrics: other metrics in [0, 1], such as AUC.
        figures: those without that scale, such as a median rank.
        units: (N,) what the bootstrap draws, by default groups; numbers from 0 without gaps.
    """

    samples: Sequence[Sample]
    strata: Integers
    outcomes: Mapping[str, Array]
    metrics: Mapping[str, RowMetric] = field(default_factory=dict)
    figures: Mapping[str, RowMetric] = field(default_factory=dict)
    units: Integers | None = None

    @property
    def ids(self) -> frozenset[str]:
        """Of the samples."""
        return frozenset(sample.id for sample in self.samples)


def score_domain(
    domain: str,
    predicted: Predicted,
    how: Bootstrap,
    *,
    notes: Sequence[str] = (),
    pooled: Sequence[str] = (),
    **details: Any,
) -> DomainScore:
    """The score of a domain with at least one sample. Metrics that are undefined on it are left out.

    Args:
        details: further fields of :class:`DomainScore`.
    """
    samples = predicted.samples
    units = sample_groups(samples) if predicted.units is None else predicted.units
    every = np.arange(len(samples))
    found = _measure(predicted, every, units, how)
    few = _few(len(samples), _group_count(units))
    shares = [name for name in found if name not in predicted.figures]
    undefined = [name for name in (*predicted.outcomes, *predicted.metrics) if name not in found]
    none = (f"undefined on these samples: {', '.join(undefined)}",) if undefined and not shares else ()
    return DomainScore(
        domain=domain,
        count=len(samples),
        metrics={name: found[name].value for name in shares},
        intervals={name: found[name].bounds for name in shares},
        level=how.level,
        ids=tuple(sample.id for sample in samples),
        outcomes=predicted.outcomes,
        notes=(*notes, *none, *few),
        figures={name: (x.value, *x.bounds) for name, x in found.items() if name in predicted.figures},
        pooled=tuple(pooled),
        draws={name: found[name].draws for name in shares if name not in predicted.outcomes and "/" not in name},
        groups=_group_count(units),
        units=tuple(units.tolist()) if _group_count(units) else (),
        subgroups=tuple(_subgroups(predicted, units, how)),
        **details,
    )


def _few(count: int, groups: int) -> tuple[str, ...]:
    """The note on intervals from few samples or groups."""
    number, what = (groups, "group") if groups else (count, "sample")
    if number == 1:
        return (f"only 1 {what}: no interval can be given, so the bounds are all that is possible",)
    return (f"only {number} {what}s: the intervals are rough",) if number < FEW else ()


def with_subgroups(score: DomainScore, samples: Sequence[Sample], subgroups: Subgroups) -> DomainScore:
    """``score`` with subgroups by its outcomes alone, for a task that does not score them itself."""
    if score.subgroups or not score.ids or not score.outcomes:
        return score
    by_id = {sample.id: sample for sample in samples}
    scored = [by_id[name] for name in score.ids if name in by_id]
    if len(scored) < len(score.ids):
        return score
    predicted = Predicted(scored, np.zeros(len(scored), dtype=np.int64), score.outcomes)
    found = _subgroups(predicted, sample_groups(scored), Bootstrap(level=score.level, subgroups=subgroups))
    return replace(score, subgroups=tuple(found))


@dataclass(frozen=True)
class _Measured:
    value: float
    bounds: tuple[float, float]
    draws: Array


def _measure(predicted: Predicted, rows: Integers, units: Integers, how: Bootstrap) -> dict[str, _Measured]:
    """Metric -> what it is on ``rows``."""
    metrics: dict[str, RowMetric] = {name: _mean(outcome) for name, outcome in predicted.outcomes.items()}
    metrics |= {**predicted.metrics, **predicted.figures}

    def values(counts: Array | None) -> Array:
        return np.stack([metric(rows, counts) for metric in metrics.values()], axis=1)

    groups = np.unique(units[rows], return_inverse=True)[1]
    drawn = bootstrap(predicted.strata[rows], values, how.resamples, how.seed, groups).T
    found = {}
    for name, value, draws in zip(metrics, map(float, values(None)[0]), drawn, strict=True):
        if np.isnan(value):
            continue
        known = draws[~np.isnan(draws)]
        low, high = interval(known, how.level) if len(known) else (value, value)
        if groups.max() == 0 and name not in predicted.figures:
            low, high = 0.0, 1.0
        found[name] = _Measured(value, (min(low, value), max(high, value)), np.round(draws, 6))
    return found


def _mean(outcome: Array) -> RowMetric:
    return lambda rows, counts: accuracy(outcome[rows], counts)


def _subgroups(predicted: Predicted, units: Integers, how: Bootstrap) -> list[SubgroupScore]:
    found = []
    for column, value_of in how.subgroups.items():
        values = np.array([value_of.get(sample.id, "") for sample in predicted.samples])
        for value in dict.fromkeys(value_of.values()):
            rows = np.flatnonzero(values == value)
            if not len(rows):
                continue
            count, groups = len(rows), _group_count(units[rows])
            if (groups or count) < LEAST:
                number, what = (groups, "group") if groups else (count, "sample")
                note = f"only {number} {what}{'' if number == 1 else 's'}: too few to judge"
                found.append(SubgroupScore(column, value, count, groups, note=note))
                continue
            measured = _measure(predicted, rows, units, how)
            shares = [name for name in measured if name not in predicted.figures]
            metrics = {name: measured[name].value for name in shares}
            bounds = {name: measured[name].bounds for name in shares}
            found.append(SubgroupScore(column, value, count, groups, metrics, bounds))
    return found


def confusion(classes: Sequence[str], labels: Integers, chosen: Integers) -> Confusion:
    """How often each class is taken for each other: ``labels`` and ``chosen`` (N,) are numbers of ``classes``."""
    size = len(classes)
    counts = np.bincount(labels * size + chosen, minlength=size * size).reshape(size, size)
    return Confusion(tuple(classes), tuple(tuple(row) for row in counts.tolist()))


def _group_count(units: Integers) -> int:
    """Number of groups, 0 where each has one sample."""
    number = len(np.unique(units))
    return 0 if number == len(units) else number
