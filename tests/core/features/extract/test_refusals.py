"""Refused answers are reported before extraction."""

from __future__ import annotations

import json
import re
from pathlib import Path

from kdkit.core.data import load_index
from kdkit.core.features.extract.missing import extract_missing
from tests.core.distill.plan.test_checks import reader_project
from tests.errors import raises_error
from tests.toy_project import open_project


def test_refused_answers_are_reported_before_extraction(tmp_path: Path) -> None:
    root = tmp_path / "p"
    reader_project(root, words=["ct"], options={"max_answer": 26})
    manifest = root / "images" / "samples.jsonl"
    lines = manifest.read_text(encoding="utf-8").splitlines()
    for number in (4, 9):
        lines[number] = json.dumps({**json.loads(lines[number]), "text": "x" * 28})
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    project = open_project(root)
    with raises_error("KD-FEAT-007", where=f"{manifest}:5", mentions=("'reader'", "29 tokens")) as caught:
        extract_missing(project, load_index(project))
    assert re.findall(r"\d+", caught.value.why) == ["2", "24"]
    assert not list((root / "features").rglob("*.h5"))
