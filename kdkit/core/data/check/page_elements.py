"""Elements of the page of ``kdkit data check``. ElementTree escapes every text and attribute when it writes them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.result import one_line
from kdkit.core.contracts import SPLITS, Sample
from kdkit.core.data.thumbnails import thumbnail

SIDE = 144
"""Pixels of the longest side of a picture."""
TEXT = 160
"""Characters of a sample's text."""
BINS = 24
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


def add(parent: Element, tag: str, text: object = None, **attributes: object) -> Element:
    """A new element below ``parent``, with text that is made one line; a trailing ``_`` of a name is left out."""
    names = {name.rstrip("_").replace("_", "-"): str(value) for name, value in attributes.items()}
    child = SubElement(parent, tag, names)
    if text is not None:
        child.text = clean(str(text))
    return child


def clean(text: str) -> str:
    """Text of others on one line, without controls, marks that reverse its direction, or what is no Unicode."""
    shown = one_line(text).encode("utf-8", "backslashreplace").decode()
    return "".join(c for c in shown if not ("\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069"))


def add_table(parent: Element, headers: Sequence[str], rows: Iterable[Sequence[object]], numbers_from: int) -> None:
    """A table; columns from ``numbers_from`` on hold numbers."""
    table = add(parent, "table")
    for tag, row in (("th", headers), *(("td", row) for row in rows)):
        line = add(table, "tr")
        for column, cell in enumerate(row):
            add(line, tag, cell, **({"class_": "n"} if column >= numbers_from else {}))


def add_picture(parent: Element, sample: Sample, hide: Callable[[str], str], *, text: bool = True) -> None:
    """A figure with the sample's picture, id, class and split, and the beginning of its text.

    Args:
        parent: where it goes.
        sample: what is shown.
        hide: takes what is private out of the id and of errors.
        text: show the text too.
    """
    figure = add(parent, "figure")
    try:
        picture = thumbnail(sample, SIDE)
    except (KdkitError, OSError) as error:
        add(figure, "p", hide(f"no picture: {error.what if isinstance(error, KdkitError) else error.strerror}"))
    else:
        source = "data:image/jpeg;base64," + base64.b64encode(picture).decode("ascii")
        add(figure, "img", src=source, alt=clean(hide(sample.id)), loading="lazy")
    caption = add(figure, "figcaption")
    add(caption, "b", hide(sample.id))
    add(caption, "div", f"{sample.domain} / {sample.label or 'no label'}")
    add(caption, "div", sample.split, class_=sample.split)
    if text and sample.text:
        add(caption, "div", sample.text[:TEXT] + "…" * (len(sample.text) > TEXT), class_="soft")


def add_histogram(parent: Element, title: str, values: NDArray[np.float64], unit: str, *, log: bool = False) -> None:
    """A histogram as SVG: counts of ``values`` (N,); with ``log`` the bins are equally wide in the logarithm."""
    if not len(values):
        return
    low, high = float(values.min()), float(values.max())
    if low == high:
        edges = np.array([low, low + 1])
    elif log and low > 0:
        edges = np.geomspace(low, high, BINS + 1)
    else:
        edges = np.linspace(low, high, min(BINS, max(1, int(high - low) + 1)) + 1)
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)
    counts, _ = np.histogram(values, edges)
    chart = add(parent, "div")
    add(chart, "h3", title)
    width, height, step = 320, 120, 320 / len(counts)
    svg = add(chart, "svg", width=width, height=height + 32, viewBox=f"0 0 {width} {height + 32}", role="img")
    svg.set("aria-label", title)
    for number, count in enumerate(counts.tolist()):
        size = height * count / counts.max()
        bar = add(
            svg, "rect", class_="all", x=f"{number * step:.1f}", y=f"{height - size:.1f}",
            width=f"{max(step - 1, 1):.1f}", height=f"{size:.1f}",
        )  # fmt: skip
        add(bar, "title", f"{edges[number]:.0f} to {edges[number + 1]:.0f} {unit}: {count}")
    add(svg, "line", class_="axis", x1=0, x2=width, y1=height, y2=height)
    add(svg, "text", f"{low:.0f}", x=0, y=height + 14)
    add(svg, "text", f"{high:.0f} {unit}", x=width, y=height + 14, text_anchor="end")
    add(svg, "text", f"median {np.median(values):.0f}, tallest bar {counts.max()}", x=0, y=height + 28)


def add_bars(parent: Element, rows: Mapping[str, Mapping[str, int]]) -> None:
    """A bar per name, as long as its samples, in the colors of the splits."""
    longest = max((sum(splits.values()) for splits in rows.values()), default=0) or 1
    table = add(parent, "table")
    for name, splits in rows.items():
        line = add(table, "tr")
        add(line, "td", name)
        svg = add(add(line, "td"), "svg", width=420, height=14, viewBox="0 0 420 14")
        left = 0.0
        for split in SPLITS:
            size = 420 * splits.get(split, 0) / longest
            bar = add(svg, "rect", class_=split, x=f"{left:.2f}", y=1, width=f"{size:.2f}", height=12)
            add(bar, "title", f"{splits.get(split, 0)} {split}")
            left += size
        add(line, "td", " + ".join(str(splits.get(split, 0)) for split in SPLITS), class_="n")
