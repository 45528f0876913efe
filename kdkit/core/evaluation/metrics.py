"""Metrics and their bootstrap intervals, with numpy alone. Public: evaluation tasks of plugins may use them.

Shapes: N samples, C classes, R bootstrap resamples. A metric takes ``counts`` (N, R), the number of times that each
sample is drawn in each resample; all ones is the plain metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Integers = np.ndarray[Any, np.dtype[np.int64]]
Array = np.ndarray[Any, Any]
Metric = Callable[[Array], Floats]
"""Counts (N, R) -> values (R,)."""

RESAMPLES = 1000
SEED = 42
LEVEL = 0.95
UNKNOWN = (-1.0, 1.0)
"""Bounds of a difference of which nothing is known: all that two metrics in [0, 1] can differ by."""
_CHUNK = 1_000_000
"""Elements of one block of resample counts: a few megabytes, whatever the size of the bootstrap."""


def accuracy(outcomes: Array, counts: Array | None = None) -> Floats:
    """Mean of per-sample outcomes (N,) under ``counts`` (N, R) -> (R,); without counts, R = 1.

    Example:
        >>> accuracy(np.array([1, 0, 1, 1]))
        array([0.75])
    """
    counts = _once(outcomes) if counts is None else counts
    return np.asarray(np.asarray(outcomes, dtype=np.float64) @ counts / counts.sum(axis=0), dtype=np.float64)


def class_auc(labels: Integers, scores: Floats, counts: Array | None = None) -> Floats:
    """Area under the ROC curve of each class against the rest.

    The Mann-Whitney statistic with ties counted half: ``AUC_c = P(s+ > s-) + P(s+ = s-) / 2`` (Hanley and
    McNeil, Radiology 143, 1982), from ranks, without building the curve.

    Args:
        labels: (N,) class index in [0, C).
        scores: (N, C).
        counts: (N, R) multiplicity of each sample, or None for every sample once.

    Returns:
        (C, R); NaN for a class that no sample has, or that all samples have.
    """
    counts = _once(labels) if counts is None else counts
    result = np.full((scores.shape[1], counts.shape[1]), np.nan)
    for c in range(scores.shape[1]):
        has = labels == c
        if has.any() and not has.all():
            result[c] = _mann_whitney(scores[has, c], scores[~has, c], counts[has], counts[~has])
    return result


def macro_auc(labels: Integers, scores: Floats, counts: Array | None = None) -> Floats:
    """Mean over classes of :func:`class_auc` -> (R,): macro one-vs-rest AUC (Provost and Domingos, 2000).

    Classes that are undefined in a resample are excluded from it; NaN if all are.
    For C > 2 the value depends on the normalization of scores over
    classes, hence on the scale of the softmax: record it.
    """
    per_class = class_auc(labels, scores, counts)
    defined = ~np.isnan(per_class)
    number = defined.sum(axis=0)
    total = np.where(defined, per_class, 0.0).sum(axis=0)
    return np.asarray(np.divide(total, number, out=np.full(len(number), np.nan), where=number > 0), dtype=np.float64)


def average_precision(positive: Array, scores: Floats, counts: Array | None = None) -> Floats:
    """``sum_k (R_k - R_{k-1}) P_k`` over the distinct scores, from the highest: precision P and recall R of the samples
    with at least that score, without interpolation (as scikit-learn's ``average_precision_score``).

    Args:
        positive: (N,) bool; scores: (N,); counts: (N, R), or None for every sample once.

    Returns:
        (R,); NaN where no positive sample is drawn.
    """
    counts = _once(scores) if counts is None else counts
    order = np.argsort(-scores, kind="stable")
    ranked, right, drawn = scores[order], np.asarray(positive)[order], counts[order].astype(np.float64)
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    hits = np.cumsum(np.where(right[:, None], drawn, 0.0), axis=0)[ends]
    total = np.cumsum(drawn, axis=0)[ends]
    precision = hits / np.maximum(total, 1e-300)
    gained = np.diff(hits, axis=0, prepend=0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((gained * precision).sum(axis=0) / hits[-1], dtype=np.float64)


def decisions(positive: Array, chosen: Array, counts: Array | None = None) -> tuple[Floats, Floats, Floats]:
    """Precision, recall and F1 of one class: (R,) each, 0 where undefined, as scikit-learn's.

    Args:
        positive, chosen: (N,) bool, whether the sample is of the class, and is said to be; counts: as :func:`accuracy`.
    """
    counts = _once(positive) if counts is None else counts
    right, said, true = (mask.astype(np.float64) @ counts for mask in (positive & chosen, chosen, positive))
    precision, recall, f1 = (
        np.divide(a, b, out=np.zeros_like(a), where=b > 0)
        for a, b in ((right, said), (right, true), (2 * right, said + true))
    )
    return precision, recall, f1


def sensitivity_at(specificity: float, positive: Array, scores: Floats, counts: Array | None = None) -> Floats:
    """(R,) the highest share of positive samples at or above a threshold that keeps ``specificity``: at most
    ``1 - specificity`` of the others reach it. NaN without positive or without other samples."""
    counts = _once(scores) if counts is None else counts
    order = np.argsort(-scores, kind="stable")
    ranked, right, drawn = scores[order], np.asarray(positive)[order][:, None], counts[order].astype(np.float64)
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    hits = np.cumsum(np.where(right, drawn, 0.0), axis=0)[ends]
    false = np.cumsum(np.where(right, 0.0, drawn), axis=0)[ends]
    allowed = false <= (1 - specificity) * false[-1] + 1e-9
    best = np.where(allowed, hits, 0.0).max(axis=0)
    defined = (hits[-1] > 0) & (false[-1] > 0)
    return np.asarray(np.divide(best, hits[-1], out=np.full(len(best), np.nan), where=defined), dtype=np.float64)


def _mann_whitney(positive: Floats, negative: Floats, times_positive: Array, times_negative: Array) -> Floats:
    order = np.argsort(negative, kind="stable")
    # below[k]: draws of the k lowest negatives. float32 is exact up to 2^24 and twice as fast.
    below = np.zeros((len(negative) + 1, times_negative.shape[1]), dtype=np.float32)
    np.cumsum(times_negative[order], axis=0, out=below[1:])
    ranked = negative[order]
    wins = below[np.searchsorted(ranked, positive, "left")] + below[np.searchsorted(ranked, positive, "right")]
    total = times_positive.sum(axis=0, dtype=np.float64) * below[-1]
    with np.errstate(invalid="ignore"):  # NaN where a resample lacks one side
        return np.asarray(np.einsum("pr,pr->r", times_positive, wins, dtype=np.float64) / (2 * total))


def _once(samples: Array) -> Array:
    return np.ones((len(samples), 1), dtype=np.float32)


# ------------------------------------------------------------------------------- intervals


def resample_counts(
    labels: Integers, resamples: int = RESAMPLES, seed: int = SEED, groups: Integers | None = None
) -> Iterator[Array]:
    """Blocks (N, r) of a stratified bootstrap, ``resamples`` columns in all.

    Each class is drawn with replacement as often as it occurs (Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, section 8.4), so no resample lacks a class. Equal labels and seeds give equal resamples for every model:
    differences between models are paired.

    With ``groups`` (N,) in 0..G - 1, whole groups (patients) are drawn: images of one patient are no independent
    evidence (the cluster bootstrap; Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).
    Groups are stratified by the set of their classes. A stratum of one group would be drawn once in every resample,
    without any variance, so such strata are joined; a class of few groups may then lack in a resample.
    """
    if groups is None or len(np.unique(groups)) == len(groups):
        yield from _resamples(labels, len(labels), resamples, seed)
    else:
        for counts in _resamples(_strata(labels, groups), len(labels), resamples, seed):
            yield counts[groups]


def _resamples(labels: Integers, rows: int, resamples: int, seed: int) -> Iterator[Array]:
    """``rows``: of the counts that are made from these, for the size of a block."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    block = max(1, _CHUNK // max(1, rows))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        counts = np.empty((len(labels), size), dtype=np.float32)
        for rows_of_class in members:
            n = len(rows_of_class)
            draws = rng.integers(n, size=(size, n)) + np.arange(size)[:, None] * n
            counts[rows_of_class] = np.bincount(draws.ravel(), minlength=size * n).reshape(size, n).T
        yield counts


def _strata(labels: Integers, groups: Integers) -> Integers:
    """(G,) equal numbers for groups with the same set of classes; at least two groups have each number, if G > 1."""
    classes: list[set[int]] = [set() for _ in range(int(groups.max()) + 1)]
    for group, label in np.unique(np.stack([groups, labels], axis=1), axis=0).tolist():
        classes[group].add(label)
    kinds = [tuple(sorted(found)) for found in classes]
    number = {kind: position for position, kind in enumerate(sorted(set(kinds)))}
    strata = np.array([number[kind] for kind in kinds], dtype=np.int64)
    sizes = np.bincount(strata)
    alone = sizes == 1
    if alone.sum() == 1 and len(sizes) > 1:
        alone[np.argsort(sizes, kind="stable")[1]] = True  # one such group joins the next smallest stratum
    return np.where(alone[strata], len(sizes), strata)


def bootstrap(
    labels: Integers,
    metric: Metric,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    groups: Integers | None = None,
) -> Floats:
    """(R,) values of ``metric`` over stratified resamples, of whole ``groups`` if given. Difference of two metrics: a
    paired bootstrap."""
    return np.concatenate([metric(counts) for counts in resample_counts(labels, resamples, seed, groups)])


def interval(values: Floats, level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval of bootstrap ``values`` (Efron and Tibshirani 1993, chapter 13)."""
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def wilson(correct: Array, count: Array, level: float = 0.95) -> tuple[Array, Array]:
    """Two-sided score interval of ``correct / count`` (Wilson, JASA 22, 1927, without continuity correction).

    ``(p + z^2/2n -+ z sqrt(p (1-p)/n + z^2/4n^2)) / (1 + z^2/n)``: stays in [0, 1] and keeps a width at p = 0
    or 1, where the normal interval has none (Brown, Cai and DasGupta, Statistical Science 16, 2001).

    Args:
        correct, count: of any equal shape, ``0 <= correct <= count``.
        level: coverage, in (0, 1).

    Returns:
        (lower, upper), float64 of that shape; NaN where ``count`` is 0.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    n = np.where(np.asarray(count) > 0, count, np.nan).astype(np.float64)
    p = np.asarray(correct, dtype=np.float64) / n
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At p = 0 and p = 1 the bounds are exactly 0 and 1; rounding would leave 1e-17.
    lower, upper = np.where(p == 0, 0.0, center - half), np.where(p == 1, 1.0, center + half)
    return np.where(np.isnan(p), np.nan, lower), np.where(np.isnan(p), np.nan, upper)


def paired_difference(
    before: Floats,
    after: Floats,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    level: float = LEVEL,
    groups: Integers | None = None,
) -> tuple[float, float, float]:
    """Mean of ``after - before`` over the same samples, with its bootstrap interval.

    The mean of a resample depends only on the multinomial counts of the distinct differences. The bootstrap draws these
    counts, exactly and for any N. With ``groups``, whole groups are drawn, see :func:`resample_counts`.

    Args:
        before, after: (N,) outcomes in [0, 1] of two models on the same samples, in the same order; N >= 1.

    Returns:
        (difference, low, high). One sample, or one group, shows nothing of chance: the bounds are then :data:`UNKNOWN`.
    """
    difference = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    n = len(difference)
    if n < 2 or (groups is not None and len(np.unique(groups)) < 2):
        return (float(difference.mean()), *UNKNOWN)
    if groups is not None and len(np.unique(groups)) < n:
        one_stratum = np.zeros(n, dtype=np.int64)
        means = bootstrap(one_stratum, lambda counts: accuracy(difference, counts), resamples, seed, groups)
        return (float(difference.mean()), *interval(means, level))
    values, times = np.unique(difference, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(n, times / n, size=resamples)
    return (float(difference.mean()), *interval(draws @ values / n, level))


def design_effect(outcomes: Floats, groups: Integers) -> float:
    """How many times larger the variance of a mean is because samples of one group (patient) are alike.

    ``G/(G-1) sum_g (sum_{i in g} (x_i - mean))^2 / sum_i (x_i - mean)^2`` (Kish, Survey Sampling, 1965, section 5.4;
    Cameron and Miller, Journal of Human Resources 50, 2015). It lies between 1 and ``sum_g m_g^2 / n``, the value where
    all samples of a group of m are equal, which equal outcomes get too: nothing shows that they differ.

    Args:
        outcomes: (N,); groups: (N,) in 0..G - 1.

    Example:
        >>> design_effect(np.array([1.0, 1.0, 0.0, 0.0]), np.array([0, 0, 1, 1]))
        2.0
    """
    sizes = np.bincount(groups)
    most = float((sizes**2).sum() / len(groups))
    centered = np.asarray(outcomes, dtype=np.float64) - np.mean(outcomes)
    alone = float(centered @ centered)
    if alone <= 0 or len(sizes) < 2:
        return most
    together = float((np.bincount(groups, weights=centered) ** 2).sum()) * len(sizes) / (len(sizes) - 1)
    return float(np.clip(together / alone, 1.0, most))


def median_rank(ranks: Integers, counts: Array | None = None) -> Floats:
    """Median of ranks (N,) under ``counts`` (N, R) -> (R,): the mean of the two middle ones where there are two.

    Example:
        >>> median_rank(np.array([7, 1, 2, 3]))
        array([2.5])
    """
    counts = _once(ranks) if counts is None else counts
    order = np.argsort(ranks, kind="stable")
    below = np.cumsum(counts[order], axis=0, dtype=np.float64)
    ranked, half = ranks[order], below[-1] / 2
    lower, upper = (below < half).sum(axis=0), (below <= half).sum(axis=0)
    return np.asarray((ranked[lower] + ranked[np.minimum(upper, len(ranked) - 1)]) / 2, dtype=np.float64)


def mean_interval(
    values: Floats, lows: Floats, highs: Floats, weights: Floats | None = None
) -> tuple[float, float, float]:
    """Weighted mean of independent estimates with an interval made from theirs.

    ``L = sum c x - sqrt(sum c^2 (x - l)^2)``, likewise U: MOVER (Zou and Donner, Statistics in Medicine 27,
    2008), which needs no normality and keeps the asymmetry of the parts. ``weights`` default to 1 / number.

    Returns:
        (mean, low, high).
    """
    weights = np.full(len(values), 1 / len(values)) if weights is None else weights
    mean = float(weights @ values)
    down = float(np.sqrt(np.sum((weights * (values - lows)) ** 2)))
    up = float(np.sqrt(np.sum((weights * (highs - values)) ** 2)))
    return mean, mean - down, mean + up
