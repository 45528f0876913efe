"""Where a pull keeps what it fetches until there is a project."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdkit.core.errors import ExitCode, KdkitError

_BUSY, _FILES = "busy", "files"


@contextmanager
def staging(into: Path) -> Iterator[Path]:
    """A folder, not there yet, for the files of a release whose project ``into`` becomes; one pull at a time has it.

    It lies in ``.NAME.pulled`` beside ``into``, always, so that a pull that was cut off finds what it has fetched
    already; that is gone at the end where nothing of a download is left in it.

    Raises:
        KdkitError: another process is pulling into the same folder.
    """
    room = into.with_name(f".{into.name}.pulled")
    room.mkdir(parents=True, exist_ok=True)
    files = room / _FILES
    with open(room / _BUSY, "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KdkitError(
                "another 'kdkit pull' is making this project",
                where=str(into),
                fix="wait for it to end, or choose another folder: --to DIR",
                code=ExitCode.FOUND,
            ) from None
        try:
            shutil.rmtree(files, ignore_errors=True)
            yield files
        finally:
            shutil.rmtree(files, ignore_errors=True)
            if {path.name for path in room.glob("*")} <= {_BUSY}:
                shutil.rmtree(room, ignore_errors=True)
