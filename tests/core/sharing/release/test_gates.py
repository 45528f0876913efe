"""Decisions of ``kdkit best-of-n`` leave with a version: without paths, under the names of their settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.core.evaluation.answering.gate import unmeasured
from kdkit.core.evaluation.answering.gate_file import GATES, Gate, read_gates, write_gate
from kdkit.core.project.versions import Version
from kdkit.core.sharing.release.gates import gates_among, keep_gates, write_gates

NAME = f"{7:016x}.json"


def test_there_and_back(tmp_path: Path) -> None:
    gate = Gate("v1", {"task": {"corenlp": "/home/alice/nlp"}, "model": "v1 now"}, {"vg/ct": unmeasured("vg/ct")})
    here, there = Version("v1", tmp_path / "here"), Version("v1", tmp_path / "there")
    write_gates(here, tmp_path / "empty")
    assert not (tmp_path / "empty").exists()
    write_gate(here.folder / GATES / NAME, gate)
    write_gates(here, tmp_path / "release")
    names = [path.relative_to(tmp_path / "release").as_posix() for path in (tmp_path / "release").rglob("*.json")]
    assert names == gates_among(names) == [f"kdkit/best-of-n/{NAME}"]
    there.folder.mkdir()
    keep_gates(tmp_path / "release", names, there.folder)
    (found,) = read_gates(there.folder).values()
    assert (found.settings["task"], found.domains) == ({"corenlp": "(not published)"}, dict(gate.domains))


@pytest.mark.parametrize("name", ["../x.json", "best.json", f"a/{7:016x}.json", f"{7:016x}.json.pkl"])
def test_other_files_are_no_gates(name: str) -> None:
    assert gates_among([f"kdkit/best-of-n/{name}"]) == []
