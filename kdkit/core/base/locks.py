"""Locks of open files (``flock``), on file systems with and without them."""

from __future__ import annotations

import errno
import fcntl
from typing import IO, Any


def try_lock(file: IO[Any] | int) -> bool | None:
    """Lock an open file until it is closed.

    Returns:
        False if another process holds the lock; None on a file system without locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            return None
        raise
    return True
