"""Tests lie where their sources lie: ``tests/core/x/test_y.py`` tests ``kdkit/core/x/y.py``."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "journeys": "several commands or rooms in one story",
    "local_hub": "the Hub emulator, which the wheel does not hold",
}
"""Folders of tests that mirror no folder of kdkit -> why."""
OTHERWISE: dict[str, str] = {
    "plugins/test_builtins.py": "what holds for every built-in plugin",
    "plugins/test_conformance.py": "the contract suites of kdkit.testing on every built-in plugin",
    "plugins/loaders/test_encoders.py": "what holds for the encoders of every loader",
}
"""Test files that mirror no file of kdkit -> why."""


def test_every_test_mirrors_a_source() -> None:
    astray = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        name = path.relative_to(ROOT / "tests")
        if len(name.parts) == 1 or name.parts[0] in ELSEWHERE or name.as_posix() in OTHERWISE:
            continue
        module = ROOT / "kdkit" / name.parent / name.name.removeprefix("test_")
        package = module.with_suffix("")
        if not module.is_file() and not package.is_dir():
            astray.append(name.as_posix())
    assert astray == []


def test_the_exceptions_exist() -> None:
    assert [name for name in (*ELSEWHERE, *OTHERWISE) if not (ROOT / "tests" / name).exists()] == []
