"""What a student loses without a source: its accuracy with all sources and without one, on the same samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from kdkit.core.base.result import Result, Section, Table
from kdkit.core.evaluation.metrics import LEVEL, mean_interval, paired_difference
from kdkit.core.evaluation.report.tables import count_unit
from kdkit.core.evaluation.scores import Evaluation

METRIC = "accuracy"
ENOUGH = 0.8
"""Share of the version's accuracy that runs must reach to say something about it."""
Kind = Literal["teacher", "texts"]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Change:
    """The change of accuracy without a source, in one domain or in the mean over domains.

    Attributes:
        everything, without: accuracy in [0, 1] of the run with all sources and of that without one, means over seeds.
        points: ``100 (without - everything)``; negative where the source helps. ``low`` and ``high`` bound it.
        count: samples.
    """

    everything: float
    without: float
    points: float
    low: float
    high: float
    count: int

    @property
    def distinguishable(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {**asdict(self), "distinguishable": self.distinguishable}


@dataclass(frozen=True)
class SourceEffect:
    """What the student would lose without one source.

    Attributes:
        source: a teacher, ``captions`` or ``answers``.
        domains: the change per domain.
        mean: over these domains.
    """

    source: str
    kind: Kind
    domains: Mapping[str, Change]
    mean: Change

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "source": self.source,
            "kind": self.kind,
            "domains": [{"domain": domain, **change.to_json()} for domain, change in self.domains.items()],
            "mean": self.mean.to_json(),
        }


@dataclass(frozen=True)
class Explanation(Result):
    """What was learned from whom: the change of accuracy without each source, on the calibration split.

    Attributes:
        length: of the runs, as a share of the recipe's steps; ``steps`` in steps.
        seeds: of the runs.
        sources: teachers, then the samples' own texts.
        task: name of the evaluation task.
        version_accuracy: of the version itself, mean over the compared domains; None where it was not judged.
    """

    version: str
    recipe: str
    length: float
    steps: int
    seeds: tuple[int, ...]
    sources: tuple[SourceEffect, ...]
    task: str
    version_accuracy: float | None = None

    @property
    def too_short(self) -> bool:
        """Whether the run with all sources falls far behind the version: then the changes say little about it."""
        reached = self.sources[0].mean.everything
        return self.version_accuracy is not None and reached < ENOUGH * self.version_accuracy

    def to_json(self) -> dict[str, Any]:
        """All figures."""
        return {
            "version": self.version,
            "recipe": self.recipe,
            "length": self.length,
            "steps": self.steps,
            "seeds": list(self.seeds),
            "split": "calibration",
            "level": LEVEL,
            "version_accuracy": self.version_accuracy,
            "too_short": self.too_short,
            "sources": [effect.to_json() for effect in self.sources],
        }

    def sections(self) -> list[Section]:
        """Domains by sources, then the mean."""
        first, seeds = self.sources[0], ", ".join(map(str, self.seeds))
        rows = [(d, *self._row([effect.domains[d] for effect in self.sources])) for d in first.domains]
        mean = ("mean", *self._row([effect.mean for effect in self.sources]))
        headers = ("domain", *(f"without {effect.source}" for effect in self.sources), "with all, %")
        runs = f"{(1 + len(self.sources)) * len(self.seeds)} runs of {self.steps} steps from scratch"
        covered = f"the same {count_unit(self.task)}" + (" and over seeds" if len(self.seeds) > 1 else "")
        return [
            f"Change in accuracy (points) of {self.version}'s student without each source; calibration split, "
            f"{100 * LEVEL:g} % interval over {covered}",
            Table((*headers, count_unit(self.task)), [*rows, mean], "l" + "l" * len(self.sources) + "rr"),
            "",
            f"~ not distinguishable from 0. {runs} ({self.length:g} of recipe {self.recipe}), seed {seeds}",
            "Two sources that know the same can both show 0: each replaces the other.",
            *self._reached(),
            *(
                ["One seed: the chance of training is in no interval; --seeds 3 adds it"]
                if len(self.seeds) == 1
                else []
            ),
        ]

    def _reached(self) -> list[Section]:
        if self.version_accuracy is None:
            return []
        reached = (
            f"{100 * self.sources[0].mean.everything:.1f} %, {self.version} has {100 * self.version_accuracy:.1f} %"
        )
        verdict = ": the runs are too short to tell, raise --length" if self.too_short else ""
        return [f"With all sources the mean is {reached}{verdict}"]

    @staticmethod
    def _row(changes: Sequence[Change]) -> list[str]:
        cells = [
            f"{c.points:+.1f} ({c.low:+.1f} to {c.high:+.1f})" + ("" if c.distinguishable else " ~") for c in changes
        ]
        return [*cells, f"{100 * changes[0].everything:.1f}", str(changes[0].count)]


def measure_effects(
    everything: Sequence[Evaluation],
    without: Mapping[tuple[str, Kind], Sequence[Evaluation]],
    domains: Sequence[str],
) -> tuple[SourceEffect, ...]:
    """Compare runs with all sources with runs without one, sample by sample.

    Intervals cover the choice of samples, or of groups (a paired bootstrap). With several seeds they cover the chance
    of training too.

    Args:
        everything: one evaluation per seed.
        without: (source, kind) -> one evaluation per seed, in the same order.
        domains: those to compare.
    """
    groups = everything[0].groups
    before = {domain: _outcomes(everything, domain) for domain in domains}
    after = {source: {domain: _outcomes(runs, domain) for domain in domains} for source, runs in without.items()}
    points = {
        domain: 100 * np.stack([own[domain].mean(axis=1) - before[domain].mean(axis=1) for own in after.values()])
        for domain in domains
    }
    noise = {domain: training_noise(points[domain]) for domain in domains}
    noise_of_mean = training_noise(np.mean([points[domain] for domain in domains], axis=0))
    effects = list[SourceEffect]()
    for (source, kind), own in after.items():
        changes = {domain: _change(before[domain], own[domain], groups.get(domain)) for domain in domains}
        mean = _widened(_mean(list(changes.values())), noise_of_mean)
        widened = {domain: _widened(change, noise[domain]) for domain, change in changes.items()}
        effects.append(SourceEffect(source, kind, widened, mean))
    return tuple(effects)


def training_noise(points: Array) -> float:
    """Half the width of the 95 % interval of a change that is due to the chance of training; 0 for one seed.

    ``t s / sqrt(S)`` with the variance ``s^2`` between seeds, pooled over sources.

    Args:
        points: (K, S) change without each of K sources, for each of S seeds.

    Example:
        >>> training_noise(np.array([[-2.0], [1.0]]))
        0.0
        >>> round(training_noise(np.array([[-2.0, -4.0], [1.0, -1.0]])), 1)
        4.3
    """
    sources, seeds = points.shape
    if seeds == 1:
        return 0.0
    from scipy.stats import t as student_t

    deviation = float(np.sqrt(points.var(axis=1, ddof=1).mean() / seeds))
    return float(student_t.ppf((1 + LEVEL) / 2, sources * (seeds - 1))) * deviation


def _outcomes(runs: Sequence[Evaluation], domain: str) -> Array:
    """(S, N) outcomes of S seeds on N samples."""
    return np.stack([run.of_role("student")[0].domains[domain].outcomes[METRIC] for run in runs])


def _change(everything: Array, without: Array, groups: tuple[int, ...] | None) -> Change:
    before, after = everything.mean(axis=0), without.mean(axis=0)
    drawn = None if groups is None else np.array(groups)
    points, low, high = (100 * value for value in paired_difference(before, after, groups=drawn))
    return Change(float(before.mean()), float(after.mean()), points, low, high, len(before))


def _mean(changes: Sequence[Change]) -> Change:
    points, lows, highs = (np.array([getattr(c, name) for c in changes]) for name in ("points", "low", "high"))
    before, after = (float(np.mean([getattr(c, name) for c in changes])) for name in ("everything", "without"))
    return Change(before, after, *mean_interval(points, lows, highs), sum(c.count for c in changes))


def _widened(change: Change, noise: float) -> Change:
    """Two independent causes of error: their squares add."""
    low = change.points - math.hypot(change.points - change.low, noise)
    return replace(change, low=low, high=change.points + math.hypot(change.high - change.points, noise))
