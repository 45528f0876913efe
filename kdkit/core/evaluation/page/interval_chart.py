"""Rows of dots and intervals on one scale: inline SVG whose places are percentages, so that it fits any width."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kdkit.core.base.markup import Markup, tag

HEIGHT, MIDDLE = 28, 14
SHAPES = 7
"""Markers ``m0`` to ``m6`` of :func:`markers`, beside ``student`` and ``oracle``."""
COLORS = 6
"""Classes ``t0`` to ``t5`` of the style sheet."""
_EDGE = 3.0
"""Percent of the width that stay free on both sides."""


@dataclass(frozen=True)
class Scale:
    """A linear scale with ticks; ``unit`` follows their numbers."""

    low: float
    high: float
    ticks: tuple[float, ...]
    factor: float = 1.0
    unit: str = ""

    def at(self, value: float) -> str:
        """The place of a value, such as ``45.2%``; values beyond an end lie at that end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return f"{_EDGE + (100 - 2 * _EDGE) * share:.2f}%"


def scale_of(values: Iterable[float], *, factor: float = 1.0, unit: str = "", zero: bool = False) -> Scale:
    """A scale with round ends around the values that are not NaN.

    Args:
        factor: of the numbers at the ticks: 100 for shares in percent.
        zero: include 0.

    Example:
        >>> scale_of([0.62, 0.97], factor=100).ticks
        (0.6, 0.7, 0.8, 0.9, 1.0)
    """
    known = [value for value in values if not math.isnan(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-9:
        low, high = low - (0.05 * abs(low) or 0.05), high + (0.05 * abs(high) or 0.05)
    step = _round_step((high - low) / 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(number * step, 10) for number in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], ticks, factor, unit)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= rough * 0.999)


@dataclass(frozen=True)
class Dot:
    """A marker: ``shape`` is an id of :func:`markers`, ``style`` a class with its color."""

    value: float
    shape: str
    style: str
    title: str


@dataclass(frozen=True)
class Span:
    """An interval."""

    low: float
    high: float
    style: str


@dataclass(frozen=True)
class Rule:
    """A vertical line over the whole height, such as zero or a tolerance."""

    value: float
    style: str = "rule"


def look(position: int) -> tuple[str, str]:
    """Marker and color class of the teacher with this position; both together repeat after 42 teachers."""
    return f"m{position % SHAPES}", f"t{position % COLORS}"


def strip(scale: Scale, marks: Sequence[Dot | Span | Rule], label: str) -> Markup:
    """One row; marks lie in their order, the last on top.

    Args:
        label: the row in words.
    """
    grid = [_line(scale.at(tick), "grid") for tick in scale.ticks]
    drawn = [_mark(scale, mark) for mark in marks if not _unknown(mark)]
    return tag("svg", *grid, *drawn, class_="strip", width="100%", height=HEIGHT, role="img", aria_label=label)


def axis(scale: Scale) -> Markup:
    """The ticks' numbers, for the header of a column of strips."""
    ends = {scale.ticks[0]: "start", scale.ticks[-1]: "end"}
    texts = [
        tag(
            "text",
            f"{scale.factor * tick:g}{scale.unit if tick in ends else ''}".replace("-", "−"),
            x=scale.at(tick), y=12, text_anchor="middle",
        )
        for tick in scale.ticks
    ]  # fmt: skip
    return tag("svg", *texts, class_="axis", width="100%", height=16, aria_hidden="true")


def markers() -> Markup:
    """The definitions of all markers, once per page; each is about 10 pixels wide around its place."""
    shapes = {
        "student": "M0-6.5L6.5 0L0 6.5L-6.5 0Z",
        "oracle": "M-1.3-10H1.3V10H-1.3Z",
        "m0": "M-4.4 0A4.4 4.4 0 1 0 4.4 0A4.4 4.4 0 1 0-4.4 0Z",
        "m1": "M-4-4H4V4H-4Z",
        "m2": "M0-5L5 4H-5Z",
        "m3": "M0 5L5-4H-5Z",
        "m4": "M-1.6-5H1.6V-1.6H5V1.6H1.6V5H-1.6V1.6H-5V-1.6H-1.6Z",
        "m5": "M0-5L4.8-1.5L2.9 4.1H-2.9L-4.8-1.5Z",
        "m6": "M-5-2.5L-2.5-5L0-2.5L2.5-5L5-2.5L2.5 0L5 2.5L2.5 5L0 2.5L-2.5 5L-5 2.5L-2.5 0Z",
    }
    paths = (tag("path", id=f"mark-{name}", d=d) for name, d in shapes.items())
    return tag("svg", tag("defs", *paths), width=0, height=0, aria_hidden="true", class_="hidden")


def key(shape: str, style: str, name: str) -> Markup:
    """An entry of a legend."""
    mark = tag("use", href=f"#mark-{shape}", x=8, y=8, class_=style)
    return tag("span", tag("svg", mark, width=16, height=16, aria_hidden="true"), name, class_="key")


def _mark(scale: Scale, mark: Dot | Span | Rule) -> Markup:
    if isinstance(mark, Dot):
        return tag(
            "use", tag("title", mark.title), href=f"#mark-{mark.shape}", x=scale.at(mark.value), y=MIDDLE,
            class_=mark.style,
        )  # fmt: skip
    if isinstance(mark, Span):
        return tag("line", x1=scale.at(mark.low), x2=scale.at(mark.high), y1=MIDDLE, y2=MIDDLE, class_=mark.style)
    return _line(scale.at(mark.value), mark.style)


def _line(x: str, style: str) -> Markup:
    return tag("line", x1=x, x2=x, y1=0, y2=HEIGHT, class_=style)


def _unknown(mark: Dot | Span | Rule) -> bool:
    return math.isnan(mark.low + mark.high) if isinstance(mark, Span) else math.isnan(mark.value)
