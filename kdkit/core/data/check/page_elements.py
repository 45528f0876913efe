"""Elements of the page of ``kdkit data check``."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.markup import Markup, join, printable, tag
from kdkit.core.contracts import SPLITS, Sample, Split
from kdkit.core.data.thumbnails import thumbnail

SIDE = 144
"""Pixels of the longest side of a picture."""
TEXT = 160
"""Characters of a sample's text."""
BINS, WIDTH, HEIGHT = 24, 320, 120
"""Of a histogram: bars at most, and its size in pixels."""
STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #5b6570; --line: #d5dae0; --back: #ffffff; --card: #f5f7f9;
  --train: #2f6fb5; --calibration: #d98a1c; --test: #4c9a5a; --problem: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaed; --soft: #a3adb7; --line: #3a424b; --back: #15181c;
  --card: #1f242a; --train: #6ea8e6; --calibration: #e9ad55; --test: #7cc48a; --problem: #f2857d; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--back); margin: 0 auto;
  max-width: 1180px; padding: 16px 24px 64px; overflow-wrap: anywhere; }
h1 { font-size: 1.5em } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid var(--line) }
h3 { font-size: 1em; margin: 1.2em 0 .4em } table { border-collapse: collapse; margin: .5em 0 }
th, td { text-align: left; padding: 2px 12px 2px 0; border-bottom: 1px solid var(--line); vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums } .soft { color: var(--soft) }
.problem { color: var(--problem); font-weight: 600 } ul { padding-left: 1.2em; margin: .3em 0 }
.sheet { display: flex; flex-wrap: wrap; gap: 10px; margin: .6em 0 }
.group { display: flex; flex-wrap: wrap; gap: 6px; padding: 6px; border: 1px solid var(--line); border-radius: 6px }
.group { max-width: 326px; align-content: flex-start } .group > p { flex-basis: 100%; margin: 0; font-size: 12px }
details { margin: .4em 0 } summary { cursor: pointer; color: var(--soft) }
figure { margin: 0; width: 150px; background: var(--card); border-radius: 4px; padding: 3px; font-size: 12px }
figure img { display: block; max-width: 144px; margin: 0 auto } figcaption { unicode-bidi: isolate }
.charts { display: flex; flex-wrap: wrap; gap: 24px } svg text { fill: var(--soft); font-size: 11px }
.train { fill: var(--train); color: var(--train) } .calibration { fill: var(--calibration); color: var(--calibration) }
.test { fill: var(--test); color: var(--test) } .all { fill: var(--train) } .axis { stroke: var(--line) }
"""


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], numbers_from: int) -> Markup:
    """A table; columns from ``numbers_from`` on hold numbers."""
    lines = []
    for name, row in (("th", headers), *(("td", row) for row in rows)):
        cells = (tag(name, str(x), class_="n" if i >= numbers_from else None) for i, x in enumerate(row))
        lines.append(tag("tr", *cells))
    return tag("table", *lines)


def picture(sample: Sample, hide: Callable[[str], str], *, text: bool = True) -> Markup:
    """A figure with the sample's picture, id, class and split, and the beginning of its text.

    Args:
        sample: what is shown.
        hide: takes what is private out of the id and of errors.
        text: show the text too.
    """
    name = hide(sample.id)
    try:
        source = "data:image/jpeg;base64," + base64.b64encode(thumbnail(sample, SIDE)).decode("ascii")
        shown = tag("img", src=source, alt=printable(name), loading="lazy")
    except (KdkitError, OSError) as error:
        shown = tag("p", hide(f"no picture: {error.what if isinstance(error, KdkitError) else error.strerror}"))
    beginning = sample.text[:TEXT] + "…" * (len(sample.text) > TEXT) if text else ""
    caption = tag(
        "figcaption",
        tag("b", name),
        tag("div", f"{sample.domain} / {sample.label or 'no label'}"),
        tag("div", sample.split, class_=sample.split),
        tag("div", beginning, class_="soft") if beginning else None,
    )
    return tag("figure", shown, caption)


def histogram(title: str, values: NDArray[np.float64], unit: str, *, log: bool = False) -> Markup | None:
    """Counts of ``values`` (N,) as SVG; with ``log`` the bins are equally wide in the logarithm. None of no values."""
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    edges = _edges(low, high, log=log)
    counts, _ = np.histogram(values, edges)
    step = WIDTH / len(counts)
    bars = []
    for number, count in enumerate(counts.tolist()):
        size = HEIGHT * count / counts.max()
        hint = tag("title", f"{edges[number]:.0f} to {edges[number + 1]:.0f} {unit}: {count}")
        place = {"x": f"{number * step:.1f}", "y": f"{HEIGHT - size:.1f}"}
        bars.append(tag("rect", hint, class_="all", width=f"{max(step - 1, 1):.1f}", height=f"{size:.1f}", **place))
    below = f"median {np.median(values):.0f}, tallest bar {counts.max()}"
    chart = tag(
        "svg",
        *bars,
        tag("line", class_="axis", x1=0, x2=WIDTH, y1=HEIGHT, y2=HEIGHT),
        tag("text", f"{low:.0f}", x=0, y=HEIGHT + 14),
        tag("text", f"{high:.0f} {unit}", x=WIDTH, y=HEIGHT + 14, text_anchor="end"),
        tag("text", below, x=0, y=HEIGHT + 28),
        width=WIDTH, height=HEIGHT + 32, viewBox=f"0 0 {WIDTH} {HEIGHT + 32}", role="img", aria_label=title,
    )  # fmt: skip
    return tag("div", tag("h3", title), chart)


def _edges(low: float, high: float, *, log: bool) -> NDArray[np.float64]:
    """Edges of a histogram's bins, that hold both bounds."""
    if low == high:
        edges = np.array([low, low + 1])
    elif log and low > 0:
        edges = np.geomspace(low, high, BINS + 1)
    else:
        edges = np.linspace(low, high, min(BINS, max(1, int(high - low) + 1)) + 1)
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)
    return edges


def bars(rows: Mapping[str, Mapping[Split, int]]) -> Markup:
    """A bar per name, as long as its samples, in the colors of the splits."""
    longest = max((sum(splits.values()) for splits in rows.values()), default=0) or 1
    return tag("table", *(_bar(name, splits, 420 / longest) for name, splits in rows.items()))


def _bar(name: str, splits: Mapping[Split, int], scale: float) -> Markup:
    left, parts = 0.0, []
    for split in SPLITS:
        size, hint = scale * splits.get(split, 0), tag("title", f"{splits.get(split, 0)} {split}")
        parts.append(tag("rect", hint, class_=split, x=f"{left:.2f}", y=1, width=f"{size:.2f}", height=12))
        left += size
    counts = " + ".join(str(splits.get(split, 0)) for split in SPLITS)
    bar = tag("svg", join(parts), width=420, height=14, viewBox="0 0 420 14")
    return tag("tr", tag("td", name), tag("td", bar), tag("td", counts, class_="n"))
