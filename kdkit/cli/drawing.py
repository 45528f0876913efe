"""Results on a terminal: tables that fit its width, heat maps, sparklines. Piped output never comes here."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from kdkit.core.base.cells import Course, Shade
from kdkit.core.base.result import CONTROLS, Section, Table, without_controls

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

SHADES = (
    ("#eef4fb", "#111827"), ("#cee3f1", "#111827"), ("#aed2e6", "#111827"), ("#9ecae1", "#111827"),
    ("#80b0d0", "#111827"), ("#6296c0", "#111827"), ("#4077ab", "#ffffff"), ("#26629f", "#ffffff"),
    ("#08488e", "#ffffff"),
)  # fmt: skip
"""Background and text of a heat map, low to high; readable on light and dark terminals."""
BARS = "▁▂▃▄▅▆▇█"
GAP = 2
LEAST, FIRST = 10, 28
"""Characters that a column of text keeps when it is wrapped; those of the first column, at most, when a table is cut
into parts."""


def terminal(stream: TextIO) -> Console | None:
    """A console for ``stream`` if that is a terminal. Without colors where ``NO_COLOR`` is set or it has none."""
    try:
        if not stream.isatty():
            return None
    except ValueError:  # closed
        return None
    from rich.console import Console

    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM", "dumb") in ("dumb", "unknown")
    if plain:
        return Console(file=stream, force_terminal=False, color_system=None, highlight=False, emoji=False)
    return Console(file=stream, highlight=False, emoji=False)


def render(sections: Sequence[Section], console: Console) -> str:
    """The sections as text for the console, without a final line break."""
    with console.capture() as capture:
        for part in sections:
            if isinstance(part, str):
                console.print(without_controls(part), markup=False, highlight=False, soft_wrap=True)
                continue
            for number, table in enumerate(fold(part, console.width)):
                if number:
                    console.print()
                console.print(_drawn(table, console))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def fold(table: Table, width: int) -> list[Table]:
    """The table in parts that fit ``width``: each repeats the first column. One part if wrapped cells fit.

    Example:
        >>> wide = Table(("domain", *(f"teacher-{n}" for n in range(9))), [("ct", *range(9))])
        >>> [len(part.headers) for part in fold(wide, 40)]
        [4, 4, 4]
    """
    count = len(table.headers)
    least = [_least(table, column) for column in range(count)]
    if count < 3 or sum(least) + GAP * count <= width:
        return [table]
    parts, taken, used = list[list[int]](), list[int](), least[0]
    for column in range(1, count):
        if taken and used + 2 * GAP + least[column] > width:
            parts.append(taken)
            taken, used = [], least[0]
        taken.append(column)
        used += GAP + least[column]
    parts.append(taken)
    return [_columns(table, [0, *part]) for part in parts]


def _least(table: Table, column: int) -> int:
    """The width that a column needs: that of its longest word, at least, for text; that of its content for numbers."""
    cells = [str(row[column]) for row in (table.headers, *table.rows)]
    if table.align[column : column + 1] == "r" or any(isinstance(row[column], Shade) for row in table.rows):
        words = [str(table.headers[column]).split(" "), [str(row[column]) for row in table.rows]]
        return max((len(word) for group in words for word in group), default=0)
    longest = max((len(word) for cell in cells for word in cell.split(" ")), default=0)
    whole = max(map(len, cells), default=0)
    return min(FIRST if column == 0 else whole, max(longest, min(whole, LEAST)), FIRST)


def _columns(table: Table, chosen: Sequence[int]) -> Table:
    align = table.align.ljust(len(table.headers), "l")
    return Table(
        [table.headers[column] for column in chosen],
        [[row[column] for column in chosen] for row in table.rows],
        "".join(align[column] for column in chosen),
    )


def _drawn(table: Table, console: Console) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable

    unicode = console.encoding.startswith("utf")
    gap = GAP - 1 if unicode else GAP  # the box draws a space between columns
    drawn = RichTable(box=box.SIMPLE_HEAD if unicode else None, pad_edge=False, padding=(0, gap, 0, 0), show_edge=False)
    for column, header in enumerate(table.headers):
        right = table.align[column : column + 1] == "r"
        drawn.add_column(
            _plain(str(header)),
            justify="right" if right else "left",
            overflow="fold",
            min_width=_least(table, column),
        )
    widths = [max((len(str(row[column])) for row in table.rows), default=0) for column in range(len(table.headers))]
    sides = [table.align[column : column + 1] == "r" for column in range(len(table.headers))]
    for row in table.rows:
        drawn.add_row(
            *(_cell(cell, width, side, console) for cell, width, side in zip(row, widths, sides, strict=True))
        )
    return drawn


def _cell(cell: object, width: int, right: bool, console: Console) -> Text:
    """One cell; that of a heat map fills the width of its column."""
    if isinstance(cell, Course):
        return _plain(sparkline(cell.values) if console.encoding.startswith("utf") else str(cell))
    text = _plain(str(cell))
    if isinstance(cell, Shade):
        fill = max(0, width - len(text))
        text.pad_left(fill) if right else text.pad_right(fill)
        if cell.strong:
            text.stylize("bold")
        if not math.isnan(cell.value) and console.color_system in ("256", "truecolor"):
            back, ink = SHADES[round((len(SHADES) - 1) * min(1.0, max(0.0, cell.value)))]
            text.stylize(f"{ink} on {back}")
    return text


def _plain(text: str) -> Text:
    from rich.text import Text

    return Text(text.translate(CONTROLS))


def sparkline(values: Sequence[float]) -> str:
    """Values as blocks of eight heights, the lowest to the highest; a space where one is NaN.

    Example:
        >>> sparkline([90.0, 70.0, float("nan"), 80.0])
        '█▁ ▅'
    """
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return ""
    low, high = min(known), max(known)
    steps = len(BARS) - 1
    shares = (math.nan if math.isnan(v) else 0.5 if high == low else (v - low) / (high - low) for v in values)
    return "".join(" " if math.isnan(share) else BARS[round(steps * share)] for share in shares)
