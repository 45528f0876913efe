"""Confidence bounds of a proportion."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


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
