"""Shares and differences as text."""

from __future__ import annotations

import math

DASH = "–"


def percent(value: float, digits: int = 1) -> str:
    """``0.912`` as ``91.2``; a dash for NaN."""
    return DASH if math.isnan(value) else f"{100 * value:.{digits}f}"


def bounds(low: float, high: float) -> str:
    """An interval of shares in percent: ``88.0 to 93.9``; empty for NaN."""
    return "" if math.isnan(low) or math.isnan(high) else f"{100 * low:.1f} to {100 * high:.1f}"


def points(value: float) -> str:
    """Points with a sign and a true minus."""
    return DASH if math.isnan(value) else f"{value:+.1f}".replace("-", "−")


def points_bounds(low: float, high: float) -> str:
    """An interval in points."""
    return "" if math.isnan(low) or math.isnan(high) else f"{points(low)} to {points(high)}"
