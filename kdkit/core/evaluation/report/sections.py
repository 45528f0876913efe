"""What a result shows to people, once for the terminal and for notebooks: lines of text and tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

DrawTable = Callable[[Sequence[str], Sequence[Sequence[object]], str], str]
"""(headers, rows, alignment) -> text; the terminal's way of drawing a table."""


@dataclass(frozen=True)
class Table:
    """Rows under headers; ``align`` has one ``l`` or ``r`` per column (``l`` where it is shorter)."""

    headers: Sequence[str]
    rows: Sequence[Sequence[object]]
    align: str = ""


Section = str | Table
"""A line of text, or a table."""


def to_text(sections: Sequence[Section], draw: DrawTable) -> str:
    """The sections below each other for a terminal."""
    return "\n".join(part if isinstance(part, str) else draw(part.headers, part.rows, part.align) for part in sections)


def to_html(sections: Sequence[Section]) -> str:
    """The sections for a notebook's ``_repr_html_``.

    Example:
        >>> to_html(["Accuracy in %"])
        '<p>Accuracy in %</p>'
    """
    return "\n".join(f"<p>{escape(part)}</p>" if isinstance(part, str) else html_table(part) for part in sections)


def html_table(table: Table) -> str:
    """One ``<table>``; text is escaped."""
    right = [table.align[column : column + 1] == "r" for column in range(len(table.headers))]

    def row(cells: Sequence[object], tag: str) -> str:
        styled = (
            f'<{tag} style="text-align: {"right" if r else "left"}">{escape(str(cell))}</{tag}>'
            for cell, r in zip(cells, right, strict=True)
        )
        return f"<tr>{''.join(styled)}</tr>"

    body = "".join(row(cells, "td") for cells in table.rows)
    return f"<table><thead>{row(table.headers, 'th')}</thead><tbody>{body}</tbody></table>"
