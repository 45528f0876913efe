"""Line charts: inline SVG with readable axes, and names at the ends of their lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kdkit.core.base.markup import Markup, shorten, tag
from kdkit.core.evaluation.page.interval_chart import Scale, scale_of
from kdkit.core.evaluation.report.labels import spread_apart

LEFT, TOP, BOTTOM = 52, 12, 34
LABEL, LETTERS = 15, 26
"""Pixels between names, and their letters."""


@dataclass(frozen=True)
class Line:
    """Points of one line; a NaN interrupts it. ``end`` is written beside its last point."""

    x: Sequence[float]
    y: Sequence[float]
    style: str
    name: str
    end: str = ""


@dataclass(frozen=True)
class _Frame:
    """Places of values on the picture."""

    x: Scale
    y: Scale
    width: int
    height: int
    right: int

    def across(self, value: float) -> float:
        return LEFT + (value - self.x.low) / (self.x.high - self.x.low) * (self.width - LEFT - self.right)

    def down(self, value: float) -> float:
        share = (value - self.y.low) / (self.y.high - self.y.low)
        return TOP + (1 - share) * (self.height - TOP - BOTTOM)


def line_chart(
    lines: Sequence[Line],
    *,
    label: str,
    x_names: Sequence[str] = (),
    x_title: str = "",
    zero: bool = False,
    width: int = 760,
    height: int = 280,
) -> Markup:
    """A chart; its words are ``label``.

    Args:
        x_names: names of x = 0, 1, 2 ... instead of numbers.
        zero: the y axis includes 0, with a line.
    """
    known = [(x, y) for line in lines for x, y in zip(line.x, line.y, strict=True) if not math.isnan(y)]
    named = [line for line in lines if line.end]
    right = 24 if not named else 20 + 7 * max(len(shorten(line.end, LETTERS)) for line in named)
    height = max(height, TOP + BOTTOM + LABEL * len(named))
    across = _positions(x_names) if x_names else scale_of([x for x, _ in known])
    frame = _Frame(across, scale_of([y for _, y in known], zero=zero), width, height, right)
    parts = [*_grid(frame, x_names, x_title, zero), *(_line(frame, line) for line in lines), *_ends(frame, named)]
    return tag(
        "svg", *parts, class_="chart", viewBox=f"0 0 {width} {height}", role="img", aria_label=label,
        preserveAspectRatio="xMinYMin meet", width=width, height=height,
    )  # fmt: skip


def sparkline(values: Sequence[float], label: str) -> Markup:
    """Values in a row of text, without axes; a single value is a dot."""
    known = [value for value in values if not math.isnan(value)] or [0.0]
    low, high = min(known), max(known)
    spread, step = (high - low) or 1.0, 72 / max(1, len(values) - 1)
    places = [
        (4 + number * step, 20 - 16 * (value - low) / spread) for number, value in enumerate(values) if value == value
    ]
    path = " ".join(f"{'M' if number == 0 else 'L'}{x:.1f} {y:.1f}" for number, (x, y) in enumerate(places))
    dots = (tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=2.2) for x, y in places)
    return tag("svg", tag("path", d=path), *dots, class_="spark", width=80, height=24, role="img", aria_label=label)


def _positions(names: Sequence[str]) -> Scale:
    last = max(1, len(names) - 1)
    return Scale(0.0, float(last), tuple(map(float, range(len(names)))))


def _grid(frame: _Frame, x_names: Sequence[str], x_title: str, zero: bool) -> list[Markup]:
    parts, base = list[Markup](), frame.height - BOTTOM
    for tick in frame.y.ticks:
        y = f"{frame.down(tick):.1f}"
        style = "zero" if zero and tick == 0 else "grid"
        parts.append(tag("line", x1=LEFT, x2=frame.width - frame.right, y1=y, y2=y, class_=style))
        parts.append(tag("text", f"{tick:g}".replace("-", "−"), x=LEFT - 8, y=y, dy="0.35em", text_anchor="end"))
    every = max(1, math.ceil(len(frame.x.ticks) / 12))
    for number, tick in enumerate(frame.x.ticks):
        if number % every == 0:
            text = shorten(x_names[number], 10) if x_names else f"{tick:g}"
            parts.append(tag("text", text, x=f"{frame.across(tick):.1f}", y=base + 17, text_anchor="middle"))
    if x_title:
        middle = (LEFT + frame.width - frame.right) / 2
        parts.append(tag("text", x_title, x=middle, y=frame.height - 3, text_anchor="middle", class_="faint"))
    return parts


def _line(frame: _Frame, line: Line) -> Markup:
    path, pen = list[str](), "M"
    for x, y in zip(line.x, line.y, strict=True):
        if math.isnan(y):
            pen = "M"
            continue
        path.append(f"{pen}{frame.across(x):.1f} {frame.down(y):.1f}")
        pen = "L"
    dots = [
        tag("circle", cx=f"{frame.across(x):.1f}", cy=f"{frame.down(y):.1f}", r=3)
        for x, y in zip(line.x, line.y, strict=True)
        if not math.isnan(y) and len(line.x) <= 12
    ]
    return tag("g", tag("title", line.name), tag("path", d=" ".join(path)), *dots, class_=f"line {line.style}")


def _ends(frame: _Frame, lines: Sequence[Line]) -> list[Markup]:
    """Names beside the last points, moved apart, tied to them by thin lines."""
    last = sorted((frame.down([y for y in line.y if y == y][-1]), n) for n, line in enumerate(lines))
    places = spread_apart([y for y, _ in last], LABEL)
    shift = max(0.0, TOP - min(places, default=TOP)) - max(0.0, max(places, default=0) - (frame.height - BOTTOM))
    parts, x = list[Markup](), frame.width - frame.right
    for place, (y, number) in zip(places, last, strict=True):
        line, at = lines[number], f"{place + shift:.1f}"
        parts.append(tag("line", x1=x, x2=x + 12, y1=f"{y:.1f}", y2=at, class_="tie"))
        name = tag("title", line.end)
        text = shorten(line.end, LETTERS)
        parts.append(tag("text", name, text, x=x + 15, y=at, dy="0.35em", class_=f"end {line.style}"))
    return parts
