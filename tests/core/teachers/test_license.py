"""Licenses of the catalogue, of the files, and after a change of the project's use."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import TeacherSpec
from kdkit.core.teachers import add_teacher, lock_teachers, open_teacher
from kdkit.core.teachers.license import read_license, read_licenses
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
def test_the_license_of_the_catalogue_is_checked_before_fetching(
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
        stub.refused(project, "t", fields, "KD-TEACH-009", code=ExitCode.DENIED)
        return
    stub.write(tmp_path / "nowhere")
    notes = stub.Notes()
    add_teacher(project, "t", fields, reporter=notes)
    assert bool(notes.warnings) == (outcome == "warned")
    assert open_teacher(project.reloaded(), "t").name == "t"


def test_the_license_of_the_files_is_checked(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path, registry="version: 1\nuse: research\n")
    folder = stub.write(tmp_path / "a")
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-nd-4.0\n---\n# A model\n", encoding="utf-8")
    fields = {"from": "local:a", "license": "mit"}
    stub.refused(project, "a", fields, "KD-TEACH-009", mentions=("cc-by-nc-nd-4.0",), code=ExitCode.DENIED)


def test_a_commercial_project_needs_a_stated_license(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path, registry="version: 1\nuse: commercial\n")
    folder = stub.write(tmp_path / "a")
    stub.refused(project, "a", {"from": "local:a"}, "KD-TEACH-009", code=ExitCode.DENIED)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n", encoding="utf-8")
    facts = add_teacher(project, "a", {"from": "local:a"})
    assert facts.license is not None
    assert facts.license.name == "mit"
    assert lock_teachers(project, ["a"])["a"].license == facts.license


def test_a_project_that_becomes_commercial_cannot_open_what_it_locked(tmp_path: Path) -> None:
    project = stub.make_project(tmp_path, registry="version: 1\nuse: research\n")
    folder = stub.write(tmp_path / "a")
    (folder / "LICENSE").write_text("Creative Commons Attribution-NonCommercial 4.0 International", encoding="utf-8")
    facts = add_teacher(project, "a", {"from": "local:a"})
    assert facts.license is not None
    assert (facts.license.name, facts.license.evidence) == ("cc-by-nc-4.0", "LICENSE")
    path = tmp_path / "registry.yaml"
    path.write_text(path.read_text("utf-8").replace("research", "commercial"), encoding="utf-8")
    with raises_error("KD-TEACH-009", where="registry.yaml:4", code=ExitCode.DENIED):
        open_teacher(project.reloaded(), "a")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (None, None, False)),
        ({"README.md": "# no front matter\nlicense: mit\n"}, (None, None, False)),
        ({"README.md": "---\nlicense: MIT\ntags: [a]\n---\nhello"}, ("mit", "README.md", False)),
        ({"README.md": "---\r\nlicense: cc-by-4.0\r\n---\r\n"}, ("cc-by-4.0", "README.md", False)),
        ({"README.md": "---\nlicense: other\nlicense_name: hai-def\n---\n"}, ("hai-def", "README.md", False)),
        ({"README.md": "---\nlicense: [mit, cc-by-nc-4.0]\n---\n"}, ("cc-by-nc-4.0", "README.md", False)),
        ({"README.md": "---\nlicense: mit\nextra_gated_prompt: agree\n---\n"}, ("mit", "README.md", True)),
        ({"README.md": "---\n: [broken\n---\n"}, (None, None, False)),
        ({"LICENSE": "MIT License\n\nPermission is hereby granted, free of charge, to"}, ("mit", "LICENSE", False)),
        ({"LICENSE.txt": "Apache License\n     Version 2.0, January 2004"}, ("apache-2.0", "LICENSE.txt", False)),
        ({"LICENSE": "Only on Tuesdays."}, ("unknown", "LICENSE", False)),
        (
            {
                "README.md": "---\nlicense: mit\n---\n",
                "LICENSE": "Creative Commons Attribution-NonCommercial-NoDerivatives 4.0 International",
            },
            ("cc-by-nc-nd-4.0", "LICENSE", False),
        ),
    ],
)
def test_the_strictest_license_that_files_state(
    tmp_path: Path, files: dict[str, str], expected: tuple[str | None, str | None, bool]
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    seen, gated = read_license(tmp_path)
    assert (seen.name if seen else None, seen.evidence if seen else None, gated) == expected


@pytest.mark.parametrize(
    ("teacher", "base", "together"),
    [
        ("mit", "mit", "mit"),
        ("mit", "cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("cc-by-nc-4.0", None, "cc-by-nc-4.0"),
        ("mit", None, "unknown"),
        ("mit", "hai-def", "hai-def"),
        (None, "mit", "mit"),
    ],
)
def test_the_stricter_license_of_adapters_and_base_counts(
    tmp_path: Path, teacher: str | None, base: str | None, together: str
) -> None:
    for name, license in (("a", teacher), ("b", base)):
        (tmp_path / name).mkdir()
        if license:
            (tmp_path / name / "README.md").write_text(f"---\nlicense: {license}\n---\n", encoding="utf-8")
    seen, _ = read_licenses([tmp_path / "a", tmp_path / "b"])
    assert seen is not None
    assert seen.name == together
