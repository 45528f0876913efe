"""The facts about one teacher as a person and a program read them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kdkit.api.teacher_facts import TeacherSheet, teacher_sheet
from kdkit.core.contracts import FactSource, TeacherSpec
from kdkit.core.teachers import add_teacher
from tests.core.teachers import stub
from tests.errors import raises_error

SPEC = TeacherSpec(
    name="a",
    summary="A.",
    source="hf:org/a",
    loader="open_clip",
    image_dim=512,
    parameters=86_000_000,
    gated=False,
    mean=(0.5, 0.25),
    options={"arch": "x"},
    verified="pixels equal",
    checked="2026-11-30",
    sources=(
        FactSource(facts=("image_dim", "mean"), source="hf:org/a config.json"),
        FactSource(facts=("image_dim",), source="a blog", verified=False),
    ),
)


def test_every_known_fact_is_printed_with_its_sources_and_unknown_ones_are_absent() -> None:
    text = str(TeacherSheet(SPEC, "kdkit 1", None))
    rows = {line.split("  ")[0]: line for line in text.splitlines()}
    assert rows["image dim"].split()[-2:] == ["[1]", "[2]"]
    assert rows["mean"].split()[-1] == "[1]"
    assert "\n[1] hf:org/a config.json\n[2] a blog (not verified)\n" in text
    assert "86,000,000" in rows["parameters"]
    assert "0.5, 0.25" in rows["mean"]
    assert rows["gated"].split()[-1] == "no"
    assert "context length" not in rows
    assert "license" not in rows
    for part in ("pixels equal", "2026-11-30", "kdkit 1", "arch x"):
        assert part in text


def test_the_json_has_every_field() -> None:
    found = json.loads(json.dumps(TeacherSheet(SPEC, "kdkit 1", None).to_json()))
    assert found["image_dim"] == 512
    assert found["context_length"] is None
    assert found["sources"][1] == {"facts": ["image_dim"], "source": "a blog", "verified": False}
    assert found["measured"] is None


@pytest.mark.parametrize("name", ["biomedclip", "kdkit:biomedclip"])
def test_a_sheet_needs_no_project(name: str) -> None:
    assert teacher_sheet(name).spec.context_length == 256


def test_an_unknown_teacher_is_refused() -> None:
    with raises_error("KD-PLUG-003", mentions=("'biomedclip'",)):
        teacher_sheet("biomedclp")


def test_a_locked_teacher_shows_what_the_probe_measured_beside_the_facts(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path, replace(SPEC, loader="stub", options={}))
    assert teacher_sheet("a", project).to_json()["measured"] is None
    stub.write(tmp_path / "folder", width=7)
    add_teacher(project, "a", {"from": "local:folder"})
    sheet = teacher_sheet("a", project.reloaded())
    assert sheet.to_json()["measured"] == {"dims": {"image": 7, "text": 7}, "preprocessing": "mean color"}
    assert "mean color" in str(sheet)
    assert sheet.spec.image_dim == 512, "the catalogue's fact stays beside it"
