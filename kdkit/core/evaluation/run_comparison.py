"""Trainings compared in pairs: the change of a student's accuracy between two kinds of runs, on the same samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.evaluation.metrics import LEVEL, mean_interval, paired_difference
from kdkit.core.evaluation.scores import ACCURACY, Evaluation

Array = np.ndarray[Any, Any]
K = TypeVar("K")


@dataclass(frozen=True)
class Change:
    """The change of accuracy, in one domain or in the mean over domains.

    Attributes:
        before, after: accuracy in [0, 1] of the two kinds of runs, means over seeds.
        points: ``100 (after - before)``; ``low`` and ``high`` bound it.
        count: samples.
    """

    before: float
    after: float
    points: float
    low: float
    high: float
    count: int

    @property
    def distinguishable(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def text(self) -> str:
        """``-3.1 (-5.0 to -1.2)``; ``~`` follows where the interval includes 0."""
        mark = "" if self.distinguishable else " ~"
        return f"{self.points:+.1f} ({self.low:+.1f} to {self.high:+.1f}){mark}"

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {**asdict(self), "distinguishable": self.distinguishable}


@dataclass(frozen=True)
class RunEffect:
    """What a variation changes: per domain, and in the mean over these domains."""

    domains: Mapping[str, Change]
    mean: Change


def compare_runs(
    pairs: Mapping[K, Sequence[tuple[Evaluation, Evaluation]]], domains: Sequence[str]
) -> dict[K, RunEffect]:
    """Compare variations with a baseline, sample by sample.

    Intervals cover the choice of samples, or of groups (a paired bootstrap). With several seeds they cover the chance
    of training too.

    Args:
        pairs: variation -> (baseline, variation) for each of its seeds, at least one.
        domains: those to compare.

    Raises:
        KdkitError: two evaluations of different samples.
    """
    for found in pairs.values():
        _require_same_samples(found, domains)
    before = {key: {d: _outcomes([b for b, _ in found], d) for d in domains} for key, found in pairs.items()}
    after = {key: {d: _outcomes([a for _, a in found], d) for d in domains} for key, found in pairs.items()}
    points = {
        key: {d: 100 * (after[key][d].mean(axis=1) - before[key][d].mean(axis=1)) for d in domains} for key in pairs
    }
    noise = {d: training_noise([points[key][d] for key in pairs]) for d in domains}
    noise_of_mean = training_noise([np.mean([points[key][d] for d in domains], axis=0) for key in pairs])
    effects: dict[K, RunEffect] = {}
    for number, (key, found) in enumerate(pairs.items()):
        groups = found[0][0].groups
        changes = {d: _change(before[key][d], after[key][d], groups.get(d)) for d in domains}
        mean = _widened(_mean(list(changes.values())), noise_of_mean[number])
        effects[key] = RunEffect({d: _widened(c, noise[d][number]) for d, c in changes.items()}, mean)
    return effects


def training_noise(points: Sequence[Array]) -> tuple[float, ...]:
    """Half the width of the 95 % interval of each change that is due to the chance of training; 0 without two seeds.

    ``t s / sqrt(S_k)`` with the variance ``s^2`` between seeds, pooled over variations.

    Args:
        points: for each variation k, (S_k,) changes of its seeds.

    Example:
        >>> training_noise([np.array([-2.0]), np.array([1.0])])
        (0.0, 0.0)
        >>> [round(half, 1) for half in training_noise([np.array([-2.0, -4.0]), np.array([1.0, -1.0])])]
        [4.3, 4.3]
    """
    freedom = sum(len(own) - 1 for own in points)
    if not freedom:
        return (0.0,) * len(points)
    from scipy.stats import t as student_t

    deviation = math.sqrt(sum(float(((own - own.mean()) ** 2).sum()) for own in points) / freedom)
    quantile = float(student_t.ppf((1 + LEVEL) / 2, freedom))
    return tuple(quantile * deviation / math.sqrt(len(own)) for own in points)


def accuracy_of(evaluation: Evaluation, domain: str) -> float:
    """The student's accuracy in [0, 1]."""
    return float(evaluation.of_role("student")[0].domains[domain].outcomes[ACCURACY].mean())


def _require_same_samples(pairs: Sequence[tuple[Evaluation, Evaluation]], domains: Sequence[str]) -> None:
    for domain in domains:
        ids = {evaluation.of_role("student")[0].domains[domain].ids for pair in pairs for evaluation in pair}
        if len(ids) > 1:
            raise KdkitError(
                "KD-EVAL-380",
                f"the runs were evaluated on different samples of '{domain}'",
                why="their outcomes cannot be compared sample by sample",
                fix="delete the evaluations, and repeat the command",
            )


def _outcomes(runs: Sequence[Evaluation], domain: str) -> Array:
    """(S, N) outcomes of S seeds on N samples."""
    return np.stack([run.of_role("student")[0].domains[domain].outcomes[ACCURACY] for run in runs])


def _change(before: Array, after: Array, groups: tuple[int, ...] | None) -> Change:
    first, second = before.mean(axis=0), after.mean(axis=0)
    drawn = None if groups is None else np.array(groups)
    points, low, high = (100 * value for value in paired_difference(first, second, groups=drawn))
    return Change(float(first.mean()), float(second.mean()), points, low, high, len(first))


def _mean(changes: Sequence[Change]) -> Change:
    points, lows, highs = (np.array([getattr(c, name) for c in changes]) for name in ("points", "low", "high"))
    before, after = (float(np.mean([getattr(c, name) for c in changes])) for name in ("before", "after"))
    return Change(before, after, *mean_interval(points, lows, highs), sum(c.count for c in changes))


def _widened(change: Change, noise: float) -> Change:
    """Two independent causes of error: their squares add."""
    low = change.points - math.hypot(change.points - change.low, noise)
    return replace(change, low=low, high=change.points + math.hypot(change.high - change.points, noise))
