"""Writing a file or a folder so that it is there whole, or not at all; and what a disk can say about it.

A draft is made in a hidden folder beside its target (``.NAME.draft-*``) and renamed when it is complete. A process
holds a lock on its drafts for as long as it lives, so that the next one that writes the same target can tell what
a killed process has left, and removes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from kdkit.core.base.errors import ExitCode, KdkitError

_LOCK, _NEW, _OLD = "busy", "new", "old"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the content of the file ``path``; see :func:`new_file`."""
    with new_file(path) as draft:
        draft.write_bytes(content)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Where to write what becomes ``path`` (or what it links to) when the block ends without an error.

    An earlier file stays until then and gives the new one its mode. Missing parent folders are made.
    """
    path = path.resolve()
    with _draft(path) as draft:
        yield draft
        if path.exists():
            shutil.copymode(path, draft)
        _sync(draft)
        os.replace(draft, path)


@contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """An empty folder to fill; it becomes ``path`` when the block ends without an error. Missing parents are made.

    Args:
        path: where nothing is yet, or an empty folder.
        replace: an earlier folder stays until then, and goes; otherwise an earlier one raises ``OSError`` at the end.
    """
    with _draft(path) as draft:
        draft.mkdir()
        yield draft
        for file in draft.rglob("*"):
            if file.is_file() and not file.is_symlink():
                _sync(file)
        old = draft.with_name(_OLD)
        if replace and path.exists():
            os.replace(path, old)
        try:
            os.replace(draft, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """A name in a folder of our own beside ``path``; the folder, and what was not renamed, is gone at the end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise KdkitError("KD-BASE-001", "there is a file where a folder must be", where=str(path.parent)) from None
    for left in path.parent.glob(f".{escape(path.name)}.draft-*"):
        _remove_if_abandoned(left)
    room = Path(tempfile.mkdtemp(prefix=f".{path.name}.draft-", dir=path.parent))
    try:
        with open(room / "lock", "w", encoding="utf-8") as lock:
            _try_to_lock(lock.fileno())
            os.replace(room / "lock", room / _LOCK)  # locked before it has the name by which others try it
            yield room / _NEW
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _remove_if_abandoned(room: Path) -> None:
    try:
        with open(room / _LOCK, "r+", encoding="utf-8") as lock:
            if _try_to_lock(lock.fileno()):
                shutil.rmtree(room, ignore_errors=True)
    except OSError:
        return  # just being made or removed, or another person's


def _try_to_lock(descriptor: int) -> bool:
    """False where another process holds it, and on disks that know no locks: nothing is swept there."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sync(file: Path) -> None:
    """Have the disk hold the bytes before their name does: otherwise a power cut could leave an empty file."""
    with open(file, "rb") as handle:
        os.fsync(handle.fileno())


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _number(error: Exception) -> int:
    """The ``errno`` of an error; safetensors and HDF5 give it in words alone."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    words = re.search(r"\bos error (\d+)|\berrno = (\d+)", str(error))
    return int(words[1] or words[2]) if words else 0


@contextmanager
def disk_errors(where: str) -> Iterator[None]:
    """Turns a full disk, or a file that may not be read or written, into one clear error."""
    try:
        yield
    except KdkitError:
        raise
    except Exception as error:
        number = _number(error)
        if number not in (*_FULL, errno.EACCES, errno.EROFS):
            raise
        full = number in _FULL
        raise KdkitError(
            "KD-BASE-002",
            "no disk space left" if full else "no permission to read or write here",
            where=str(getattr(error, "filename", None) or where),
            why=os.strerror(number),
            fix="free some space and run the command again; nothing was left half-written" if full else "",
            code=ExitCode.MISSING if full else ExitCode.DENIED,
        ) from error
