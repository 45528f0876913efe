"""Atomic writing of files and folders.

A draft is made in a hidden folder beside its target (``.NAME.draft-*``) and renamed when complete. A process holds a
lock on its drafts, so the next writer of the same target recognizes and removes drafts of killed processes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.locks import try_lock

_LOCK, _NEW, _OLD = "busy", "new", "old"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the content of ``path``; see :func:`new_file`."""
    with new_file(path) as draft:
        draft.write_bytes(content)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A draft that replaces ``path`` (or the target of that link) when the block ends without an error.

    The new file gets the mode of the old one. Missing parent folders are created.
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
    """An empty folder that becomes ``path`` when the block ends without an error. Missing parents are created.

    Args:
        path: absent, or an empty folder.
        replace: replace an existing folder at the end; otherwise it raises ``OSError``.
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
    """A name in a temporary folder beside ``path``; the folder is removed at the end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise KdkitError(
            "KD-BASE-001", "this is a file, not a folder", where=str(path.parent), fix="move the file away"
        ) from None
    for left in path.parent.glob(f".{escape(path.name)}.draft-*"):
        _remove_if_abandoned(left)
    room = Path(tempfile.mkdtemp(prefix=f".{path.name}.draft-", dir=path.parent))
    try:
        with open(room / "lock", "w", encoding="utf-8") as lock:
            try_lock(lock)
            os.replace(room / "lock", room / _LOCK)  # locked before others see it
            yield room / _NEW
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _remove_if_abandoned(room: Path) -> None:
    try:
        with open(room / _LOCK, "r+", encoding="utf-8") as lock:
            if try_lock(lock):
                shutil.rmtree(room, ignore_errors=True)
    except OSError:
        return  # being made or removed, or owned by another user


def _sync(file: Path) -> None:
    """Flush the bytes before the rename; otherwise a power cut could leave an empty file."""
    with open(file, "rb") as handle:
        os.fsync(handle.fileno())
