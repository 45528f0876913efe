"""Cells that a terminal can draw; as text they are plain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Shade:
    """A cell of a heat map.

    Attributes:
        text: of the cell.
        value: 0 (lowest) to 1 (highest) of the map; NaN without a shade.
        strong: drawn bold.
    """

    text: str
    value: float = math.nan
    strong: bool = False

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Course:
    """Values in the order of time, such as percentages; a terminal draws them as a sparkline. NaN: not measured."""

    values: Sequence[float]

    def __str__(self) -> str:
        return " ".join("-" if math.isnan(value) else f"{value:.1f}" for value in self.values)


def shades(values: Sequence[float]) -> list[float]:
    """Each value's place between the lowest (0) and the highest (1); NaN stays NaN.

    Example:
        >>> shades([0.5, 0.9, 0.7])
        [0.0, 1.0, 0.5]
    """
    known = [value for value in values if not math.isnan(value)] or [0.0]
    low, spread = min(known), (max(known) - min(known)) or 1.0
    return [round((value - low) / spread, 9) for value in values]
