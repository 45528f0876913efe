"""Licenses stop a teacher at the door, in the files, and when the project's use changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import TeacherSpec
from kdkit.core.teachers import add_teacher, lock_teachers, open_teacher
from tests.core.teachers import stub
from tests.errors import raises_error


@pytest.mark.parametrize(
    ("license", "distillation", "use", "fields", "outcome"),
    [
        ("mit", "allowed", "commercial", {}, "fine"),
        ("cc-by-nc-4.0", "non-commercial", "research", {}, "fine"),
        ("cc-by-nc-4.0", "non-commercial", "commercial", {}, "denied"),
        ("cc-by-nc-4.0", "non-commercial", "commercial", {"license": "LicenseRef-bought"}, "warned"),
        ("cc-by-nc-4.0", "non-commercial", "commercial", {"license": "mit"}, "denied"),
        ("cc-by-nc-nd-4.0", "forbidden", "research", {}, "denied"),
        ("unknown", "unknown", "research", {}, "warned"),
        ("unknown", "unknown", "commercial", {}, "denied"),
        ("unknown", "unknown", "commercial", {"license": "apache-2.0"}, "fine"),
    ],
)
def test_the_license_of_the_catalogue_stops_before_anything_is_fetched(
    tmp_path: Path, license: str, distillation: str, use: str, fields: dict[str, str], outcome: str
) -> None:
    spec = TeacherSpec(
        name="t",
        summary="",
        source="local:nowhere",
        loader="stub",
        license=license,
        distillation=distillation,  # type: ignore[arg-type]
    )
    project = stub.make_project(tmp_path, spec, registry=f"version: 1\nuse: {use}\n")
    if outcome == "denied":
        assert stub.refused(project, "t", **fields).code == ExitCode.DENIED
        return
    stub.write(tmp_path / "nowhere")
    notes = stub.Notes()
    add_teacher(project, "t", fields, reporter=notes)
    assert bool(notes.warnings) == (outcome == "warned")
    assert open_teacher(project.reloaded(), "t").name == "t"


def test_the_license_in_the_files_stops_and_leaves_nothing(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path, registry="version: 1\nuse: research\n")
    folder = stub.write(tmp_path / "a")
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-nd-4.0\n---\n# A model\n", encoding="utf-8")
    error = stub.refused(project, "a", **{"from": "local:a", "license": "mit"})
    assert error.code == ExitCode.DENIED
    assert "cc-by-nc-nd-4.0" in error.why


def test_a_commercial_project_reads_the_files_of_what_no_catalogue_knows(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path, registry="version: 1\nuse: commercial\n")
    folder = stub.write(tmp_path / "a")
    assert stub.refused(project, "a", **{"from": "local:a"}).code == ExitCode.DENIED  # nothing is stated
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n", encoding="utf-8")
    facts = add_teacher(project, "a", {"from": "local:a"})
    assert facts.license is not None
    assert facts.license.name == "mit"
    assert lock_teachers(project, ["a"])["a"].license == facts.license


def test_a_project_that_becomes_commercial_may_not_open_what_it_locked(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path, registry="version: 1\nuse: research\n")
    folder = stub.write(tmp_path / "a")
    (folder / "LICENSE").write_text("Creative Commons Attribution-NonCommercial 4.0 International", encoding="utf-8")
    facts = add_teacher(project, "a", {"from": "local:a"})
    assert facts.license is not None
    assert (facts.license.name, facts.license.evidence) == ("cc-by-nc-4.0", "LICENSE")
    path = tmp_path / "registry.yaml"
    path.write_text(path.read_text("utf-8").replace("research", "commercial"), encoding="utf-8")
    with raises_error("KD-TEACH-009", where="registry.yaml:4") as caught:
        open_teacher(project.reloaded(), "a")
    assert caught.value.code == ExitCode.DENIED
