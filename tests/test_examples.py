"""The examples are what ``kdkit new-plugin`` writes, and so are tested with it (tests/core/plugin_system/scaffold)."""

from __future__ import annotations

from pathlib import Path

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
