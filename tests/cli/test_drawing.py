"""Results on a terminal."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from kdkit.cli.drawing import fold, render, sparkline, terminal
from kdkit.core.base.cells import Course, Shade
from kdkit.core.base.result import Table

CODES = re.compile(r"\x1b\[[0-9;]*m")
WIDE = Table(
    ("domain", *(f"teacher-{n}" for n in range(12)), "images"),
    [(f"domain-{d}", *(Shade(f"{d}{n}.0 (1-2) *", n / 11, n == 3) for n in range(12)), "400") for d in range(3)],
    "l" * 13 + "r",
)


def console(width: int = 80, color: str | None = "truecolor", encoding: str = "utf-8") -> Console:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Console(
        file=stream, width=width, force_terminal=color is not None, color_system=color,  # type: ignore[arg-type]
        legacy_windows=False, no_color=False,
    )  # fmt: skip


def test_a_wide_table_is_cut_into_parts_that_fit() -> None:
    text = CODES.sub("", render([WIDE], console()))
    assert max(map(cell_len, text.splitlines())) <= 80
    for row in WIDE.rows:
        assert all(str(cell) in text for cell in row)
    heads = [line for line in text.splitlines() if line.startswith("domain ")]
    assert len(heads) > 1
    assert [word for line in heads for word in line.split() if word.startswith("teacher")] == list(WIDE.headers[1:-1])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.text("xyz ", max_size=30), min_size=5, max_size=5), min_size=1, max_size=4),
    st.integers(60, 120),
)
def test_no_cell_is_lost(rows: list[list[str]], width: int) -> None:
    table = Table([f"column {n}" for n in range(5)], rows)
    parts = fold(table, width)
    assert [head for part in parts for head in part.headers[1:]] == list(table.headers[1:])
    assert all(part.headers[0] == table.headers[0] for part in parts)
    text = CODES.sub("", render([table], console(width)))
    assert max(map(cell_len, text.splitlines())) <= width
    letters = sorted("".join(cell for row in rows for cell in row).replace(" ", ""))
    repeated = sorted("".join(row[0] for row in rows).replace(" ", "") * (len(parts) - 1))

    assert sorted(c for c in text if c in "xyz") == sorted(letters + repeated)


def test_who_may_teach_is_bold_and_shades_are_backgrounds() -> None:
    text = render([Table(("", "a", "b"), [("ct", Shade("91", 1.0, True), Shade("12", 0.0))])], console())
    bold, plain = (next(part for part in CODES.findall(text) if code in part) for code in ("1;38", "[38"))
    assert "48;2;8;72;142" in bold
    assert "48;2;238;244;251" in plain
    few = render([Table(("", "a"), [("ct", Shade("91", 1.0, True))])], console(color="standard"))
    assert "48" not in few


def test_a_course_is_a_sparkline_where_the_terminal_has_blocks() -> None:
    table = Table(("domain", "v1 v2 v3"), [("ct", Course([90.0, float("nan"), 70.0]))])
    assert "█ ▁" in render([table], console())
    assert "90.0 - 70.0" in render([table], console(encoding="ascii"))
    assert str(Course([90.0, 70.0])) == "90.0 70.0"
    assert sparkline([5.0, 5.0]) == "▅▅"


def test_a_terminal_obeys_no_cell() -> None:
    text = render([Table(("a\x1b[31m", "b"), [("\x1b]0;title\x07", "[bold]x")]), "line [red]"], console())
    assert "\x1b]" not in text
    assert "\\x1b]0;title\\x07" in text
    assert "[bold]x" in text
    assert "line [red]" in text


@pytest.fixture
def pty() -> Iterator[io.TextIOWrapper]:
    """The slave end of a real terminal."""
    master, slave = os.openpty()
    with open(slave, "w") as stream:
        yield stream
    os.close(master)


@pytest.mark.parametrize(
    ("variables", "colors"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_codes_go_to_terminals_that_want_them(
    pty: io.TextIOWrapper, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], colors: bool
) -> None:
    for name in ("TERM", "NO_COLOR", "COLORTERM", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    shown = terminal(pty)
    assert shown is not None
    assert bool(CODES.search(render([WIDE], shown))) is colors


def test_pipes_get_no_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    read, write = os.pipe()
    with open(write, "w") as stream:
        assert terminal(stream) is None
    os.close(read)


def test_a_line_of_text_escapes_control_characters() -> None:
    shown = render(["note: ct\x1b[2J"], console())
    assert shown == r"note: ct\x1b[2J"
