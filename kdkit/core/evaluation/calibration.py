"""Calibration of probabilities: errors with intervals, reliability bins, and conformal sets. Public: tasks of plugins
may use it.

Shapes: N samples, C classes, R bootstrap resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Calibration, ConformalSets, Estimate, ReliabilityBin, Sample
from kdkit.core.evaluation.metrics import accuracy, bootstrap, interval
from kdkit.core.evaluation.sampling import sample_groups
from kdkit.core.evaluation.scoring import Bootstrap

Array = np.ndarray[Any, Any]
Integers = np.ndarray[Any, np.dtype[np.int64]]
BINS = 15
"""As in Guo et al., On Calibration of Modern Neural Networks, ICML 2017."""


@dataclass(frozen=True)
class HeldOut:
    """Probabilities (N, C) and true classes (N,) of calibration samples, for conformal sets with this coverage."""

    probabilities: Array
    labels: Integers
    coverage: float


def measure_calibration(
    probabilities: Array,
    labels: Integers,
    samples: Sequence[Sample],
    how: Bootstrap,
    held_out: HeldOut | None = None,
) -> Calibration:
    """Calibration of the class with the highest probability, and the Brier score of all classes.

    Args:
        probabilities: (N, C) rows that sum to 1.
        labels: (N,) true classes.
        samples: N samples; groups of them are drawn whole.
        held_out: by what conformal sets are calibrated; None for none.
    """
    correct = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    confidence = probabilities.max(axis=1)
    equal, mass = equal_width(confidence), equal_mass(confidence)
    squared = brier_scores(probabilities, labels)
    sets = None if held_out is None else conformal_sets(probabilities, held_out)

    def values(counts: Array | None) -> Array:
        columns = [
            calibration_error(confidence, correct, equal, counts),
            calibration_error(confidence, correct, mass, counts),
            accuracy(squared, counts),
        ]
        if sets is not None:
            holds = sets[0][np.arange(len(labels)), labels].astype(np.float64)
            columns += [accuracy(holds, counts), accuracy(sets[0].sum(axis=1), counts)]
        return np.stack(columns, axis=1)

    drawn = bootstrap(labels, values, how.resamples, how.seed, sample_groups(samples)).T
    found = [_around(float(value), draws, how.level) for value, draws in zip(values(None)[0], drawn, strict=True)]
    return Calibration(
        ece=found[0],
        adaptive_ece=found[1],
        brier=found[2],
        bins=reliability_bins(confidence, correct),
        conformal=None if sets is None or held_out is None else _described(sets, held_out, found[3], found[4]),
    )


def _around(value: float, draws: Array, level: float) -> Estimate:
    """A value and its interval, which always contains it: resamples have larger calibration errors."""
    low, high = interval(draws, level)
    return value, min(low, value), max(high, value)


def calibration_error(confidence: Array, correct: Array, bins: Integers, counts: Array | None = None) -> Array:
    """(R,) mean over samples of ``|accuracy - mean confidence|`` of their bin (Naeini et al., AAAI 2015).

    Args:
        confidence, correct: (N,); bins: (N,) the bin of each sample; counts: (N, R), or None for every sample once.
    """
    gap = confidence - correct
    weighted = gap[:, None] if counts is None else gap[:, None] * counts
    member = (np.arange(bins.max(initial=0) + 1)[:, None] == bins).astype(np.float64)
    total = len(gap) if counts is None else counts.sum(axis=0)
    return np.asarray(np.abs(member @ weighted).sum(axis=0) / total)


def equal_width(confidence: Array, bins: int = BINS) -> Integers:
    """(N,) bins ``(k / bins, (k + 1) / bins]``."""
    return np.asarray(np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1), dtype=np.int64)


def equal_mass(confidence: Array, bins: int = BINS) -> Integers:
    """(N,) bins of as equal numbers of samples as possible, in the order of confidence (Nguyen and O'Connor, EMNLP
    2015; adaptive calibration error in Nixon et al., CVPR workshops 2019)."""
    found = np.empty(len(confidence), dtype=np.int64)
    for number, rows in enumerate(np.array_split(np.argsort(confidence, kind="stable"), bins)):
        found[rows] = number
    return found


def reliability_bins(confidence: Array, correct: Array, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """Bins of equal width that have samples."""
    number = equal_width(confidence, bins)
    return tuple(
        ReliabilityBin(k / bins, (k + 1) / bins, len(rows), float(confidence[rows].mean()), float(correct[rows].mean()))
        for k in range(bins)
        if len(rows := np.flatnonzero(number == k))
    )


def brier_scores(probabilities: Array, labels: Integers) -> Array:
    """(N,) squared error summed over classes, 0 to 2 (Brier, Monthly Weather Review 78, 1950)."""
    truth = np.eye(probabilities.shape[1])[labels]
    return np.asarray(((probabilities - truth) ** 2).sum(axis=1))


def conformal_sets(probabilities: Array, held_out: HeldOut) -> tuple[Array, float]:
    """Split conformal prediction: classes with a probability of at least a threshold (Sadinle, Lei and Wasserman, JASA
    114, 2019; Angelopoulos and Bates, 2021, section 1).

    The threshold is the ``k``-th smallest probability of the true class on ``n`` calibration samples,
    ``k = floor((n + 1) (1 - coverage))``. A set then holds the true class with at least this probability, if
    calibration and test samples are exchangeable. With ``k = 0`` there are too few: every set has all classes.

    Returns:
        (N, C) bool, and the threshold.
    """
    true = held_out.probabilities[np.arange(len(held_out.labels)), held_out.labels]
    k = math.floor((len(true) + 1) * (1 - held_out.coverage) + 1e-9)
    threshold = float(np.sort(true)[k - 1]) if k > 0 else 0.0
    return probabilities >= threshold, threshold


def require_coverage(coverage: float) -> None:
    """Raises: KdkitError unless ``coverage`` is 0 (no conformal sets) or lies between 0 and 1."""
    if not 0 <= coverage < 1:
        raise KdkitError(
            "KD-EVAL-231",
            f"coverage is {coverage}",
            fix="give a probability below 1, such as 0.9; 0 makes no conformal sets",
        )


def _described(sets: tuple[Array, float], held_out: HeldOut, coverage: Estimate, size: Estimate) -> ConformalSets:
    return ConformalSets(
        target=held_out.coverage,
        coverage=coverage,
        size=size,
        empty=float((~sets[0]).all(axis=1).mean()),
        threshold=sets[1],
        calibrated_on=len(held_out.labels),
    )
