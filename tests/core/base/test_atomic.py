"""Atomic writes."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from kdkit.core.base.atomic import new_file, new_folder, require_place, write_atomically
from kdkit.core.project.project import Project
from tests.errors import raises_error


def test_a_room_is_removed_before_and_after(tmp_path: Path) -> None:
    project = Project(tmp_path)
    left = project.state / "release" / "of-a-killed-push"
    left.mkdir(parents=True)
    with project.room("release") as room:
        assert room == left.parent
        assert not room.exists()
        (room / "deep").mkdir(parents=True)
    with pytest.raises(IsADirectoryError), project.room("release"):
        project.state.write_text("a folder cannot be written like a file", encoding="utf-8")
    assert list(project.state.iterdir()) == []


@pytest.mark.parametrize("below", ["file/new", "file/deep/new"])
def test_a_file_in_the_way(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for make in (new_file, new_folder):
        with raises_error("KD-BASE-001"), make(tmp_path / below):
            raise AssertionError("nothing to write to")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_keeps_its_mode_and_its_link(tmp_path: Path) -> None:
    real, link = tmp_path / "deep" / "real", tmp_path / "link"
    write_atomically(real, b"old")
    real.chmod(0o640)
    link.symlink_to(real)
    write_atomically(link, b"new")
    assert (real.read_bytes(), real.stat().st_mode & 0o777, link.is_symlink()) == (b"new", 0o640, True)


def test_a_new_file_and_a_new_folder_have_the_usual_modes(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    (tmp_path / "usual").mkdir()
    with new_file(tmp_path / "file") as file, new_folder(tmp_path / "folder"):
        file.touch()
    for made, usual in (("file", "plain"), ("folder", "usual")):
        assert (tmp_path / made).stat().st_mode == (tmp_path / usual).stat().st_mode


def fill(folder: Path, name: str, *, replace: bool = False) -> None:
    with new_folder(folder, replace=replace) as draft:
        (draft / name).touch()


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_folder_appears_at_the_end_and_replaces_only_on_request(tmp_path: Path) -> None:
    folder = tmp_path / "v[1]"  # brackets mean something to glob
    with new_folder(folder) as draft:
        (draft / "one").touch()
        assert not folder.exists()
    with pytest.raises(OSError, match="not empty"):
        fill(folder, "two")
    assert names(tmp_path) == ["v[1]", "v[1]/one"]
    fill(folder, "two", replace=True)
    assert names(tmp_path) == ["v[1]", "v[1]/two"]


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "a", "old")
    real = os.replace

    def refuse_the_new(source: Path, target: Path) -> None:
        if Path(source).name == "new":
            raise PermissionError(13, "no")
        real(source, target)

    monkeypatch.setattr(os, "replace", refuse_the_new)
    with pytest.raises(PermissionError):
        fill(tmp_path / "a", "new", replace=True)
    assert names(tmp_path) == ["a", "a/old"]


def write_and_raise(path: Path, error: BaseException) -> None:
    path.touch()
    raise error


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()])
def test_an_error_in_the_block_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), new_folder(tmp_path / "a") as draft:
        write_and_raise(draft / "file", error)
    with pytest.raises(type(error)), new_file(tmp_path / "b") as draft:
        write_and_raise(draft, error)
    assert names(tmp_path) == []


HANGS = """
import sys, time
from pathlib import Path
from kdkit.core.base.atomic import new_folder
with new_folder(Path(sys.argv[1])) as draft:
    (draft / "large").touch()
    print("drafting", flush=True)
    time.sleep(60)
"""


def test_drafts_of_killed_processes_are_removed_and_others_stay(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HANGS, str(tmp_path / "a")], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"drafting\n"
        fill(tmp_path / "a", "mine")
        assert [name.rpartition("/")[2] for name in names(tmp_path)] == [
            *(next(tmp_path.glob(".a.draft-*")).name, "busy", "new", "large"),
            *("a", "mine"),
        ]
        other.send_signal(signal.SIGKILL)
    fill(tmp_path / "a", "again", replace=True)
    assert names(tmp_path) == ["a", "a/again"]


def test_a_draft_that_another_process_removes_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock

    def after_another(handle: IO[str], how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        write_atomically(tmp_path / "a", b"theirs")
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", after_another)
    write_atomically(tmp_path / "a", b"mine")
    assert (tmp_path / "a").read_bytes() == b"mine"
    assert names(tmp_path) == ["a"]


def test_what_killed_processes_left_in_a_folder_is_swept_by_the_next_write_there(tmp_path: Path) -> None:
    (tmp_path / ".b.draft-0123abc_").mkdir()  # not locked yet
    (tmp_path / ".c.draft-0123abc_" / "old").mkdir(parents=True)  # between the two renames of a replacement
    (tmp_path / ".d.draft-0123abc_").mkdir()
    (tmp_path / ".d.draft-0123abc_" / "chapter").touch()  # not ours
    (tmp_path / ".e.draft-mine").mkdir()
    write_atomically(tmp_path / "a", b"new")
    assert names(tmp_path) == [".d.draft-0123abc_", ".d.draft-0123abc_/chapter", ".e.draft-mine", "a", "c"]


def test_new_files_have_the_mode_of_the_umask(tmp_path: Path) -> None:
    """In a shared folder others must be able to read what a library made for its owner alone."""
    before = os.umask(0o022)
    try:
        with new_folder(tmp_path / "v1") as draft:
            (draft / "student").mkdir()
            for file in (draft / "student" / "a.safetensors", draft / "b.json"):
                file.touch(0o600)
        with new_file(tmp_path / "c") as draft:
            draft.touch(0o600)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"v1": 0o755, "student": 0o755, "a.safetensors": 0o644, "b.json": 0o644, "c": 0o644}


def test_a_place_is_checked_before_long_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for free in (tmp_path / "page.html", tmp_path / "new" / "folder" / "page.html", tmp_path / "file"):
        require_place(free)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
    for taken in (tmp_path, tmp_path / "file" / "page.html"):
        with raises_error("KD-BASE-300", where=str(taken)):
            require_place(taken)
