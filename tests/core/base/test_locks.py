"""Locks on files that their holders delete."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from typing import IO

import pytest

from kdkit.core.base.locks import file_lock, share_lock


def test_a_file_that_its_holder_deleted_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process ends between the second one's two calls; a third must not have the lock as well."""
    path, first, real = tmp_path / "busy", file_lock(tmp_path / "busy"), fcntl.flock
    first.__enter__()

    def flock(lock: IO[str], how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        path.unlink()
        first.__exit__(None, None, None)
        real(lock, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with file_lock(path) as second, file_lock(path) as third:
        assert (second, third, path.exists()) == (True, False, True)


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with file_lock(tmp_path / "busy") as lock:
        assert lock is None


class Reader:
    """What holds a shared lock."""


def test_a_shared_lock_lives_as_long_as_its_holder(tmp_path: Path) -> None:
    path, first, second = tmp_path / "busy", Reader(), Reader()
    share_lock(path, first)
    share_lock(path, second)
    del first
    with file_lock(path) as lock:
        assert lock is False
    del second
    with file_lock(path) as lock:
        assert lock is True
