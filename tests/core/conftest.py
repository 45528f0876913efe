"""Fixtures for tests of plugins that are loaded in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdkit.core.plugin_system.discovery import Catalogue, load_catalogue


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed distributions; what is imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("kdkit_"):
            del sys.modules[name]


@pytest.fixture
def fresh_catalogue(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Catalogue]]:
    """``load_catalogue`` as a new process with this environment would see it."""

    def load(**environment: str) -> Catalogue:
        for variable in ("KDKIT_PLUGINS", "KDKIT_NO_PLUGINS", "KDKIT_STRICT"):
            monkeypatch.delenv(variable, raising=False)
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        load_catalogue.cache_clear()
        return load_catalogue()

    yield load
    load_catalogue.cache_clear()
