"""Fetched files that no data entry names make room, the least recently used first."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from kdkit.core.base.locks import file_lock
from kdkit.core.data.remote_cache import LOCK, RECORD, USED, beside, make_room, note_use
from tests.recorder import Recorder

SIZE = 1000


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Folders a, b, c, d of SIZE bytes each, used in this order; no data entry has used e."""
    for number, name in enumerate("abcde"):
        folder = tmp_path / "remote" / name
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "0.tar").write_bytes(bytes(SIZE))
        beside(folder, RECORD).write_text("{}", encoding="utf-8")
        if name != "e":
            note_use(folder)
            os.utime(beside(folder, USED), (number, number))
    return tmp_path / "remote"


def left(place: Path) -> str:
    return "".join(sorted(path.name for path in place.iterdir() if path.is_dir()))


def test_the_least_recently_used_go_first_and_it_is_said(place: Path) -> None:
    reporter = Recorder()
    make_room(place / "new", [place / "a"], SIZE, SIZE, 4 * SIZE, reporter)
    assert left(place) == "abcde"  # b, c, d and the new one fit
    make_room(place / "new", [place / "a"], SIZE, SIZE, 2 * SIZE + 1, reporter)
    assert left(place) == "ade"
    assert not [path for path in place.iterdir() if path.name.startswith(("b", "c"))]
    assert [line.split()[1] for line in reporter.lines] == ["b", "c"]
    note_use(place / "a")
    make_room(place / "new", [], SIZE, SIZE, 2 * SIZE, reporter)
    assert left(place) == "ae"


def test_what_the_disk_lacks_is_freed_or_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=500))
    make_room(place / "new", [place / "a"], 9 * SIZE, 9 * SIZE, 100 * SIZE, Recorder())
    assert left(place) == "abcde"
    make_room(place / "new", [place / "a"], 2 * SIZE, 2 * SIZE, 100 * SIZE, Recorder())
    assert left(place) == "ade"


def test_folders_in_use_and_links_stay(place: Path, tmp_path: Path) -> None:
    with file_lock(beside(place / "a", LOCK)):
        make_room(place / "new", [], SIZE, SIZE, SIZE, Recorder())
    assert left(place) == "ae"
    (tmp_path / "elsewhere").mkdir()
    (place / "z").symlink_to(tmp_path / "elsewhere")
    beside(place / "z", USED).touch()
    (tmp_path / "link").symlink_to(place)
    make_room(tmp_path / "link" / "new", [], SIZE, SIZE, 0, Recorder())
    assert left(place) == "aez"
    make_room(place / "new", [], SIZE, SIZE, 0, Recorder())
    assert left(place) == "ez"
    assert (tmp_path / "elsewhere").is_dir()
