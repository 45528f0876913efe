"""What is remembered of a plugin that hung, and when it counts no longer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from kdkit.core.plugin_system.hang_cache import DAY, Hang, forget, recall, remember
from kdkit.core.plugin_system.installed import Installed, installed
from tests.conftest import write_distribution


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    """An installed plugin, and a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    write_distribution(tmp_path, "kdkit-slow", "")
    (found,) = [one for one in installed() if one.distribution == "kdkit-slow"]
    return found


def hang(age: float = 0.0) -> Hang:
    return Hang(time.time() - age, 10.0, "slow.py:3")


def test_a_hang_is_remembered_for_a_day(plugin: Installed) -> None:
    assert recall(plugin, 10.0) is None
    remember(plugin, hang(age=DAY - 60))
    found = recall(plugin, 10.0)
    assert found is not None
    assert str(found) == "did not finish importing in 10 s (slow.py:3)"
    remember(plugin, hang(age=DAY + 60))
    assert recall(plugin, 10.0) is None
    remember(plugin, hang(age=-3600))  # a clock that was put back
    assert recall(plugin, 10.0) is None


def test_it_does_not_count_against_a_higher_limit(plugin: Installed) -> None:
    remember(plugin, hang())
    assert recall(plugin, 5.0)
    assert recall(plugin, 20.0) is None


def test_it_is_forgotten_when_the_code_changes(plugin: Installed, tmp_path: Path) -> None:
    remember(plugin, hang())
    os.utime(tmp_path / "kdkit_slow.py", (1, 1))
    assert recall(plugin, 10.0) is None


def test_another_version_is_another_plugin(plugin: Installed) -> None:
    remember(plugin, hang())
    assert recall(Installed(plugin.point, plugin.distribution, "2.0"), 10.0) is None


def test_a_change_anywhere_in_the_package_counts(tmp_path: Path, plugin: Installed) -> None:
    (tmp_path / "kdkit_big" / "deep").mkdir(parents=True)
    (tmp_path / "kdkit_big" / "__init__.py").write_text("raise AssertionError('nobody imports it')")
    (tmp_path / "kdkit_big" / "deep" / "specs.py").write_text("")
    write_distribution(tmp_path, "kdkit-big", "", entry_points="[kdkit]\nbig = kdkit_big.plugin\n")
    (tmp_path / "kdkit_big.py").unlink()
    (big,) = [one for one in installed() if one.distribution == "kdkit-big"]
    remember(big, hang())
    assert recall(big, 10.0)
    (tmp_path / "kdkit_big" / "deep" / "specs.py").write_text("x = 1")
    assert recall(big, 10.0) is None
    remember(plugin, hang())
    remember(big, hang())
    forget("kdkit-big")
    assert recall(big, 10.0) is None
    assert recall(plugin, 10.0)


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"when": "x", "seconds": 1, "place": ""}', "\0"])
def test_a_damaged_note_is_no_note(damage: str, plugin: Installed, tmp_path: Path) -> None:
    remember(plugin, hang())
    (note,) = (tmp_path / "cache" / "kdkit" / "hung-plugins").iterdir()
    note.write_text(damage)
    assert recall(plugin, 10.0) is None
    forget("kdkit-slow")
    remember(plugin, hang())
    assert recall(plugin, 10.0)


def test_a_cache_that_cannot_be_written_does_no_harm(plugin: Installed, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    remember(plugin, hang())
    assert recall(plugin, 10.0) is None
    forget("kdkit-slow")
