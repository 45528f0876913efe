"""Example plugins are what ``kdkit new-plugin`` writes; the notebook-style example runs."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path

import pytest

from kdkit.core.plugin_system.catalogue import Family
from kdkit.core.plugin_system.scaffold.naming import Names
from kdkit.core.plugin_system.scaffold.write import render

EXAMPLES = Path(__file__).parents[1] / "examples"
LEFT_BY_TOOLS = {"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"}


@pytest.mark.parametrize("kind", ["teacher", "loss"])
def test_an_example_is_what_the_generator_writes(kind: Family) -> None:
    names = Names(f"{kind}-example")
    folder = EXAMPLES / names.distribution
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    found = {
        path.as_posix(): file.read_bytes() for path, file in files.items() if not LEFT_BY_TOOLS.intersection(path.parts)
    }
    again = f"rm -r {folder}; kdkit new-plugin {names.short} --kind {kind} --to {folder}"
    assert found == render(names, kind), again


def test_every_example_is_named() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [folder.name for folder in EXAMPLES.iterdir() if folder.is_dir() and f"]({folder.name})" not in page] == []


def test_the_first_student_learns_from_a_third_teacher_without_forgetting() -> None:
    found = run_path(str(EXAMPLES / "first_student.py"))
    assert found["trust"].table.teachers == ("demo-radio", "demo-tissue")
    assert (found["first"].version, found["second"].version, found["second"].promoted) == ("v1", "v2", True)
    assert [row.status for row in found["versions"]] == ["promoted", "current"]
    assert found["report"].report.evaluation.model("v2").means["accuracy"] > 0.5
    for name in ("trust", "first", "second", "versions", "report"):
        assert found[name]._repr_html_().startswith("<")
        assert str(found[name])
