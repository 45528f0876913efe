"""Answers that the student cannot be taught are found before anything is computed for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.contracts import ChecksAnswers, Sample
from kdkit.core.distill.run import Options, distill
from tests.errors import raises_error
from tests.plugins.students.clinkd.tiny import SIZES, make
from tests.toy_project import make_project, open_project


def project(root: Path) -> None:
    """A clinkd student whose answers have 24 tokens at most; two captions are longer, and one of a test sample."""
    make_project(root, teachers={"a": ("ct",)}, domains=("ct",), train=4, held_out=2)
    config: dict[str, Any] = {"sizes": SIZES, "max_tokens": 128, "max_answer": 24}
    registry = root / "registry.yaml"
    family = json.dumps({"family": "clinkd", "config": config})
    text = registry.read_text(encoding="utf-8").replace("{family: toy, config: {width: 12}}", family)
    registry.write_text(text, encoding="utf-8")
    manifest = root / "images" / "samples.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    train = [number for number, row in enumerate(rows) if row["split"] == "train"]
    test = next(number for number, row in enumerate(rows) if row["split"] == "test")
    for number in (train[3], train[5], test):
        rows[number]["text"] = "x" * 30
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize("recipe", ["clinkd", "sft"])
def test_long_answers_are_told_before_the_work(recipe: str, tmp_path: Path) -> None:
    root = tmp_path / "p"
    project(root)
    with raises_error("KD-FEAT-007", mentions=("31", "24")) as caught:
        distill(open_project(root), Options(recipe=recipe, cpu=True))
    assert caught.value.why == "the student cannot be taught the answers of 2 training samples"
    assert "samples.jsonl:" in caught.value.where
    assert "max_answer" in caught.value.fix
    assert not list((root / "features").rglob("*.h5"))


def test_what_a_student_says_of_an_answer_is_what_it_does() -> None:
    student = make(max_answer=20)
    assert isinstance(student, ChecksAnswers)
    student.check_answer(Sample(id="a", image=Path("a.png"), text="x" * 19, domain="ct"))
    with raises_error("KD-STUD-035", mentions=("'a'", "21")):
        student.check_answer(Sample(id="a", image=Path("a.png"), text="x" * 20, domain="ct"))
