"""Fetched files that no data entry names make room, the least recently used first."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdkit.core.base.locks import file_lock
from kdkit.core.data import load_index, remote_cache
from kdkit.core.data.remote import FOLDER
from kdkit.core.data.remote_cache import LOCK, RECORD, USED, beside, make_room, note_use
from kdkit.core.project.project import Project
from tests.plugins.archive_examples import PNGS, ROWS
from tests.plugins.sources.archives import members_of, write_tar
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


def test_files_of_former_entries_make_room(tmp_path: Path, memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three entries one after the other: of those before, only the last one fits beside the third."""
    for number in range(3):
        memory.pipe(f"/bucket/{number}.tar", write_tar(tmp_path / "a.tar", members_of(ROWS, PNGS)).read_bytes())
    size = (tmp_path / "a.tar").stat().st_size
    monkeypatch.setattr(remote_cache, "_size", lambda _: 2**30 - size)  # two have the limit of 1 GiB
    reporter = Recorder()
    for number in range(3):
        (tmp_path / "registry.yaml").write_text(
            f"version: 1\ndata:\n- source: webdataset\n  path: memory://bucket/{number}.tar\n"
            "  options: {max_download_gib: 1}\n",
            encoding="utf-8",
        )
        assert len(load_index(Project(tmp_path), reporter)) == 3
        time.sleep(0.01)
    folders = sorted(path.name[:5] for path in (tmp_path / ".kdkit" / FOLDER).iterdir() if path.is_dir())
    assert folders == ["1.tar", "2.tar"]
    assert [line.split()[1][:5] for line in reporter.lines if line.startswith("removed")] == ["0.tar"]
