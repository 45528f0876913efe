"""Texts against the tokenizers of teachers and student."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.core.data.check import check_data
from kdkit.core.distill import text_lengths
from kdkit.core.distill.text_lengths import TEXT_LENGTHS, TextLengths
from kdkit.core.project.project import Project
from kdkit.core.teachers import add_teacher
from tests.core.data.projects import make_project, row
from tests.tiny_models import WORDS, make_open_clip_folder


def test_what_a_teacher_and_the_student_cut_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [3, 3, 14, 15, 40, 40]  # and a start and an end
    rows = [row(i, text=" ".join(WORDS[(i + j) % len(WORDS)] for j in range(count))) for i, count in enumerate(words)]
    make_open_clip_folder(tmp_path / "tiny", context_length=16)
    make_open_clip_folder(tmp_path / "student", context_length=32)
    student = {"family": "open_clip", "config": {"init": "./student"}}
    project = make_project(tmp_path, rows, student=student)
    first = check_data(project, further=[TEXT_LENGTHS])
    assert list(first.not_looked_at) == ["text lengths"]
    add_teacher(project, "tiny", {"from": "local:tiny", "license": "mit"})
    report = check_data(Project(tmp_path), further=[TEXT_LENGTHS])
    assert report.items("text lengths") == (
        TextLengths("tiny", 16, 6, 3, 16, 42),
        TextLengths("the student", 32, 6, 2, 16, 42),
    )
    assert "text lengths" in report.looked_at
    assert any("tiny" in line and "3 of 6" in line for line in report.notes)

    def not_again(*_: object) -> None:
        raise AssertionError("the model was opened again")

    monkeypatch.setattr(text_lengths, "_measure", not_again)
    assert check_data(Project(tmp_path), further=[TEXT_LENGTHS]).items("text lengths") == report.items("text lengths")
    monkeypatch.undo()
    changed = make_project(tmp_path, [{**one, "text": "short"} for one in rows], teachers={}, student=student)
    assert not check_data(changed, further=[TEXT_LENGTHS]).items("text lengths")
