"""Answers that a teacher refuses are told before it is asked about any."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdkit.core.base.errors import KdkitError
from kdkit.core.data import load_index
from kdkit.core.features.extract.upkeep import extract_missing
from tests.core.distill.plan.test_same_tokens import reader_project
from tests.toy_project import open_project


def test_answers_that_a_teacher_refuses_are_told_before_it_is_asked(tmp_path: Path) -> None:
    root = tmp_path / "p"
    reader_project(root, words=["ct"], options={"max_answer": 26})
    manifest = root / "images" / "samples.jsonl"
    lines = manifest.read_text(encoding="utf-8").splitlines()
    for number in (4, 9):
        lines[number] = json.dumps({**json.loads(lines[number]), "text": "x" * 28})
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    project = open_project(root)
    with pytest.raises(KdkitError, match=r"teacher 'reader': sample '.*': the answer has 29 tokens") as caught:
        extract_missing(project, load_index(project))
    assert caught.value.where == f"{manifest}:5"
    assert caught.value.why == "it would refuse 2 of the 24 samples that it is to be asked about"
    assert not list((root / "features").rglob("*.h5"))
