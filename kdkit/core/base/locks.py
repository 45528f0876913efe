"""Locks of open files (``flock``), on file systems with and without them."""

from __future__ import annotations

import errno
import fcntl
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


def try_lock(file: IO[Any] | int, *, shared: bool = False) -> bool | None:
    """Lock an open file until it is closed.

    Args:
        file: open for reading and writing.
        shared: others may share the lock; otherwise nobody else has any.

    Returns:
        False if another process holds the lock; None on a file system without locks.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            return None
        raise
    return True


@contextmanager
def file_lock(path: Path) -> Iterator[bool | None]:
    """Lock the file ``path``, which is made if it is absent, until the block ends. Its holder may delete it.

    Yields:
        True; False if another process holds the lock; None on a file system without locks.

    Raises:
        FileNotFoundError: its folder does not exist.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, file_lock(Path(folder) / "busy") as first:
        ...     with file_lock(Path(folder) / "busy") as second:
        ...         first, second
        (True, False)
    """
    while True:
        with open(path, "a", encoding="utf-8") as handle:
            locked = try_lock(handle)
            # If its last holder deleted it between our two calls, lock the next file of this name.
            if not locked or _is_at(handle.fileno(), path):
                yield locked
                return


@contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Lock the file ``path``, which is made if it is absent, until the block ends; waits for other processes.

    On a file system without locks, the block runs at once.

    Raises:
        FileNotFoundError: its folder does not exist.
    """
    while True:
        with open(path, "a", encoding="utf-8") as handle:
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_at(handle.fileno(), path):
                yield
                return


def share_lock(path: Path, holder: object) -> None:
    """Share the file ``path`` with others while ``holder`` lives: :func:`file_lock` then yields False to everybody.

    Raises:
        FileNotFoundError: its folder does not exist.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        if _is_at(descriptor, path):
            weakref.finalize(holder, os.close, descriptor)
            return
        os.close(descriptor)  # its last holder deleted it between our two calls


def remove_if_free(path: Path) -> None:
    """Delete a lock file that no process holds: a killed one left it."""
    with suppress(OSError), file_lock(path) as mine:
        if mine:
            path.unlink()


def is_alive(pid: int) -> bool:
    """Whether a process of this machine runs, also one of another user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # of another user
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
