"""Results of commands: the same lines and tables on a terminal and in a notebook, and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Generic, TypeVar

CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}

IN_LINES = {code: shown for code, shown in CONTROLS.items() if code != ord("\n")}

T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """Rows under headers; ``align`` has one ``l`` or ``r`` per column (``l`` where it is shorter)."""

    headers: Sequence[str]
    rows: Sequence[Sequence[object]]
    align: str = ""


Section = str | Table
"""A line of text, or a table."""


class Result:
    """Base class of results: ``print(result)``, a notebook cell and ``--json`` show the same content."""

    def to_json(self) -> Any:
        """Plain data: what the command prints with ``--json``."""
        raise NotImplementedError

    def sections(self) -> Sequence[Section]:
        """Lines and tables."""
        raise NotImplementedError

    def __str__(self) -> str:
        return to_text(self.sections())

    def _repr_html_(self) -> str:
        return to_html(self.sections())


@dataclass(frozen=True)
class ResultRows(Result, Sequence[T], Generic[T]):
    """A result that is a sequence of records."""

    rows: tuple[T, ...]

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[T]:
        return iter(self.rows)

    def to_json(self) -> Any:
        """A list with one object per record."""
        from dataclasses import asdict

        return [asdict(row) for row in self.rows]  # type: ignore[call-overload]  # records are dataclasses


def to_text(sections: Sequence[Section]) -> str:
    """The sections below each other for a terminal."""
    return "\n".join(without_controls(part) if isinstance(part, str) else text_table(part) for part in sections)


def without_controls(text: str) -> str:
    """Text with its control characters escaped, except for line breaks: a terminal would obey them.

    Example:
        >>> print(without_controls("a\\x1b[31m"))
        a\\x1b[31m
    """
    return text.translate(IN_LINES)


def to_html(sections: Sequence[Section]) -> str:
    """The sections for a notebook.

    Example:
        >>> to_html(["Accuracy in %"])
        '<p>Accuracy in %</p>'
    """
    return "\n".join(
        (f"<p>{escape(part)}</p>" if part else "") if isinstance(part, str) else html_table(part) for part in sections
    )


def one_line(text: str) -> str:
    """Foreign text for a terminal: on one line, and without characters that the terminal would obey.

    Example:
        >>> print(one_line("a\\n b\\x1b[31m"))
        a b\\x1b[31m
    """
    return " ".join(text.split()).translate(CONTROLS)


def text_table(table: Table) -> str:
    """One table as plain text.

    Control characters, which a model's answer may contain, are escaped (``\\x1b``): a terminal would obey them.
    """
    cells = [[str(cell).translate(CONTROLS) for cell in row] for row in (table.headers, *table.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.headers))]
    cells.insert(1, ["-" * width for width in widths])
    right = _right_aligned(table)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if r else cell.ljust(width) for cell, width, r in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    )


def html_table(table: Table) -> str:
    """One ``<table>``; text is escaped."""
    right = _right_aligned(table)

    def row(cells: Sequence[object], tag: str) -> str:
        styled = (
            f'<{tag} style="text-align: {"right" if r else "left"}">{escape(str(cell))}</{tag}>'
            for cell, r in zip(cells, right, strict=True)
        )
        return f"<tr>{''.join(styled)}</tr>"

    body = "".join(row(cells, "td") for cells in table.rows)
    return f"<table><thead>{row(table.headers, 'th')}</thead><tbody>{body}</tbody></table>"


def code_lines(title: str, code: str) -> list[str]:
    """A title and indented code, each after an empty line."""
    return ["", title, "", *(f"  {line}".rstrip() for line in code.splitlines())]


def format_size(count: int) -> str:
    """Bytes with a decimal unit.

    Example:
        >>> format_size(22), format_size(13_000), format_size(1_400_000)
        ('22 bytes', '13.0 kB', '1.4 MB')
    """
    if count < 1000:
        return f"{count} byte{'s' * (count != 1)}"
    size = count / 1000
    for unit in ("kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _right_aligned(table: Table) -> list[bool]:
    return [table.align[column : column + 1] == "r" for column in range(len(table.headers))]
