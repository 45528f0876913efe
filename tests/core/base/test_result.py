"""Results print as text and as HTML."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from kdkit.core.base.result import Result, ResultRows, Section, Table, format_size, text_table, to_text


@dataclass(frozen=True)
class Row:
    name: str
    count: int


class Rows(ResultRows[Row]):
    def sections(self) -> list[Section]:
        return ["<b>", "", Table(("name", "n"), [(row.name, row.count) for row in self.rows], "lr")]


def test_a_table_aligns_its_columns() -> None:
    assert text_table(Table(["name", "n"], [["a", 5], ["long", 1234]], "lr")).splitlines() == [
        "name     n",
        "----  ----",
        "a        5",
        "long  1234",
    ]
    assert text_table(Table(["none"], [])) == "none\n----"


def test_a_table_escapes_control_characters() -> None:
    assert text_table(Table(["answer"], [["a\x1b[2Jé\x9b"]])).splitlines()[-1] == r"a\x1b[2Jé\x9b"


def test_a_result_prints_text_and_escaped_html() -> None:
    rows = Rows((Row("ct", 3),))
    assert str(rows).splitlines() == ["<b>", "", "name  n", "----  -", "ct    3"]
    html = rows._repr_html_()
    assert "&lt;b&gt;" in html
    assert 'right">3</td>' in html


def test_rows_are_a_sequence_and_json_is_plain() -> None:
    rows = Rows((Row("ct", 3), Row("mri", 4)))
    assert (len(rows), rows[1].name, [row.count for row in rows]) == (2, "mri", [3, 4])
    assert rows.to_json() == [{"name": "ct", "count": 3}, {"name": "mri", "count": 4}]


def test_the_base_class_defines_no_content() -> None:
    with pytest.raises(NotImplementedError):
        str(Result())
    with pytest.raises(NotImplementedError):
        Result().to_json()


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.0 kB"), (5 * 10**12, "5.0 TB")]
)
def test_sizes_have_a_decimal_unit(count: int, text: str) -> None:
    assert format_size(count) == text


def test_lines_escape_control_characters_and_keep_their_breaks() -> None:
    assert to_text(["ct\x1b[2J\nmri\x9b"]) == "ct\\x1b[2J\nmri\\x9b"
