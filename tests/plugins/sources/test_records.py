"""JSON files of records."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.plugins.sources.questions import read_all
from kdkit.plugins.sources.records import json_records
from tests.errors import raises_error


@pytest.mark.parametrize(
    ("content", "id", "line"),
    [
        ('[\n{"a": 1},\n{"broken\n]', "KD-SRC-033", 3),
        ('[\n{"a": 1}\n{"b": 2}\n]', "KD-SRC-033", 3),
        ('[\n{"a": 1},\n7\n]', "KD-SRC-028", 3),
        ('{"a": 1}', "KD-SRC-033", 1),
        ("", "KD-SRC-033", 1),
        ("[]", "KD-SRC-026", None),
        ("[" * 100_000, "KD-SRC-033", 1),
        (f'[{{"a": {"9" * 5000}}}]', "KD-SRC-033", 1),
    ],
)
def test_damaged_files_are_reported_with_their_line(tmp_path: Path, content: str, id: str, line: int | None) -> None:
    path = tmp_path / "data.json"
    path.write_text(content, encoding="utf-8")
    with raises_error(id, where=f"{path}:{line}" if line else str(path)):
        list(read_all(json_records(path), lambda *_: (), path))
