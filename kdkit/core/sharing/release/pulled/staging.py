"""Where a pull keeps what it fetches until there is a project."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from kdkit.core.base.errors import ExitCode, KdkitError


@contextmanager
def staging(into: Path) -> Iterator[Path]:
    """A folder, not there yet, for the files of a release whose project ``into`` becomes; one pull at a time has it.

    It lies in ``.NAME.pulled`` beside ``into``, always, so that a pull that was cut off finds what it has fetched
    already; that is gone at the end where nothing of a download is left in it.

    Raises:
        KdkitError: another process is pulling into the same folder.
    """
    room = into.with_name(f".{into.name}.pulled")
    busy, files = room.with_name(f"{room.name}.busy"), room / "files"
    with open(busy, "a", encoding="utf-8") as lock:
        if not _taken(lock, busy):
            raise KdkitError(
                "KD-REL-021",
                "another 'kdkit pull' is making this project",
                where=str(into),
                fix="wait for it to end, or choose another folder: --to DIR",
                code=ExitCode.FOUND,
            )
        try:
            shutil.rmtree(files, ignore_errors=True)
            room.mkdir(exist_ok=True)
            yield files
        finally:
            shutil.rmtree(files, ignore_errors=True)
            with suppress(OSError):  # not empty
                room.rmdir()
            busy.unlink(missing_ok=True)


def _taken(lock: IO[str], path: Path) -> bool:
    """Whether this process has the lock, and the file is still the one that others find: who had it removes it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
