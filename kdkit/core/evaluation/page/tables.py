"""Tables of the page: sortable by their headers, with colors for shares."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kdkit.core.base.markup import Child, Markup, breakable, join, tag

SHADES = 11
"""Classes ``h0`` to ``h10`` of the style sheet."""


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        content: text or markup.
        key: what the column is sorted by; by default the text.
        style: CSS classes.
        title: shown when the pointer rests on it.
    """

    content: Child
    key: float | str | None = None
    style: str = ""
    title: str = ""


@dataclass(frozen=True)
class Head:
    """Header of a column; ``sortable`` makes it a button."""

    content: Child
    style: str = ""
    sortable: bool = True


Rows = Sequence[Sequence[Cell | str]]


def number(text: str, key: float, *, title: str = "", style: str = "") -> Cell:
    """A right-aligned number; NaN sorts last."""
    return Cell(text, None if math.isnan(key) else key, f"n {style}".strip(), title)


def data_table(heads: Sequence[Head | str], rows: Rows, *, caption: str, style: str = "", foot: Rows = ()) -> Markup:
    """A table in a box that scrolls sideways; the first cell of each row is its header.

    Args:
        caption: what the table shows, for screen readers too.
        foot: rows that sorting leaves below.
    """
    top = tag("thead", tag("tr", *(_head(head if isinstance(head, Head) else Head(head)) for head in heads)))
    body = tag("tbody", *(_row(row) for row in rows))
    below = tag("tfoot", *(_row(row) for row in foot)) if foot else None
    table = tag("table", tag("caption", caption), top, body, below, class_=f"data {style}".strip())
    return tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=caption)


def heat(value: float, low: float, high: float) -> str:
    """The shade class of a value between the bounds of its table; empty for NaN.

    Example:
        >>> heat(0.5, 0.0, 1.0), heat(2.0, 0.0, 1.0)
        ('h5', 'h10')
    """
    if math.isnan(value):
        return ""
    share = 1.0 if high <= low else (value - low) / (high - low)
    return f"h{round((SHADES - 1) * min(1.0, max(0.0, share)))}"


def round_range(values: Iterable[float]) -> tuple[float, float]:
    """Bounds of the shares that are not NaN, at steps of 5 %, for :func:`heat`.

    Example:
        >>> round_range([0.62, 0.91, math.nan])
        (0.6, 0.95)
    """
    known = [value for value in values if not math.isnan(value)] or [0.0, 1.0]
    low, high = math.floor(20 * min(known)), math.ceil(20 * max(known))
    return (low - (low == high)) / 20, high / 20


def legend(low: float, high: float) -> Markup:
    """The shades with the values of their ends, in percent."""
    shades = (tag("span", class_=f"shade h{step}") for step in range(SHADES))
    return tag("p", f"{100 * low:g} % ", *shades, f" {100 * high:g} %", class_="legend")


def _head(head: Head) -> Markup:
    inner = tag("button", breakable(head.content), type="button") if head.sortable else head.content
    return tag("th", inner, scope="col", class_=head.style or None)


def _row(row: Sequence[Cell | str]) -> Markup:
    cells = [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]
    first, rest = cells[0], cells[1:]
    return tag("tr", _cell("th", first, scope="row"), join(_cell("td", cell) for cell in rest))


def _cell(name: str, cell: Cell, **attributes: str) -> Markup:
    return tag(
        name,
        breakable(cell.content),
        class_=cell.style or None,
        title=cell.title or None,
        data_v=cell.key,
        **attributes,
    )
