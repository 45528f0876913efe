"""Atomic writing of files and folders.

A draft is made in a hidden folder beside its target (``.NAME.draft-*``) and renamed when complete. A process holds a
lock on its drafts, so the next writer in the same folder recognizes and removes drafts of killed processes.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.locks import file_lock

_LOCK, _NEW, _OLD = "busy", "new", "old"
_DRAFT = re.compile(r"\.(.+)\.draft-[a-z0-9_]{8}")


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the content of ``path``; see :func:`new_file`."""
    with new_file(path) as draft:
        draft.write_bytes(content)


def require_place(path: Path) -> None:
    """Check, before long work, that a file can be written at ``path``; missing folders would be made.

    Raises:
        KdkitError: there is a folder in its place, a file in the place of a folder, or no right to write.
    """
    above = next((folder for folder in path.absolute().parents if folder.exists()), path)
    if path.is_dir() or not above.is_dir() or not os.access(above, os.W_OK):
        why = f"'{above}' is a file" if above.is_file() else f"'{above}' cannot be written"
        raise KdkitError(
            "KD-BASE-300",
            "no file can be written here",
            where=str(path),
            why="this is a folder" if path.is_dir() else why,
            fix="name a file in a folder that you may write to",
        )


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A draft that replaces ``path`` (or the target of that link) when the block ends without an error.

    The new file gets the mode of the old one, or that of the umask. Missing parent folders are created.
    """
    path = path.resolve()
    with draft_beside(path) as draft:
        yield draft
        if path.exists():
            shutil.copymode(path, draft)
        else:
            _open_to_others(draft)
        _sync(draft)
        os.replace(draft, path)


@contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """An empty folder that becomes ``path`` when the block ends without an error. Missing parents are created.

    Args:
        path: absent, or an empty folder.
        replace: replace an existing folder at the end; otherwise it raises ``OSError``.
    """
    with draft_beside(path) as draft:
        draft.mkdir()
        yield draft
        for file in draft.rglob("*"):
            if file.is_file() and not file.is_symlink():
                _open_to_others(file)
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


def _open_to_others(file: Path) -> None:
    """Give a new file the mode of the umask; safetensors makes files that only their owner may read."""
    drafts = next(above for above in file.parents if above.joinpath(_LOCK).is_file())
    if file.stat().st_nlink == 1:  # a link to the Hub's cache keeps its mode
        with suppress(PermissionError):  # a file system without modes
            file.chmod(drafts.joinpath(_LOCK).stat().st_mode & 0o777)


@contextmanager
def draft_beside(path: Path) -> Iterator[Path]:
    """A free name in a temporary folder beside ``path``, on the same file system; the folder is removed at the end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise KdkitError(
            "KD-BASE-001", "this is a file, not a folder", where=str(path.parent), fix="move the file away"
        ) from None
    remove_abandoned_drafts(path.parent)
    with ExitStack() as lock:
        room = _make_room(path, lock)
        try:
            yield room / _NEW
        finally:
            shutil.rmtree(room, ignore_errors=True)


def _make_room(path: Path, lock: ExitStack) -> Path:
    """A temporary folder beside ``path``, locked; another process may remove it before that."""
    while True:
        room = Path(tempfile.mkdtemp(prefix=f".{path.name}.draft-", dir=path.parent))
        with suppress(FileNotFoundError):
            if lock.enter_context(file_lock(room / _LOCK)) is not False:
                return room


def remove_abandoned_drafts(folder: Path) -> None:
    """Remove drafts of killed processes. A folder that one of them was about to replace returns to its place."""
    for room in folder.glob(".*.draft-*"):
        name = _DRAFT.fullmatch(room.name)
        with suppress(OSError):  # being removed, or owned by another user
            if name is None or not {path.name for path in room.iterdir()} <= {_LOCK, _NEW, _OLD}:
                continue
            with file_lock(room / _LOCK) as mine:
                if mine and (room / _OLD).exists() and not (folder / name[1]).exists():
                    os.replace(room / _OLD, folder / name[1])
                if mine:
                    shutil.rmtree(room, ignore_errors=True)


def _sync(file: Path) -> None:
    """Flush the bytes before the rename; otherwise a power cut could leave an empty file."""
    with open(file, "rb") as handle:
        os.fsync(handle.fileno())
