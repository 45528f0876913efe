"""Errors of the operating system (a full disk, no permission, no locks) as :class:`KdkitError`."""

from __future__ import annotations

import errno
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdkit.core.base.errors import ExitCode, KdkitError

_Advice = tuple[str, str, ExitCode]
_FULL: _Advice = ("no disk space left", "free space and run the command again", ExitCode.MISSING)
_DENIED: _Advice = (
    "no permission to read or write here",
    "change the permissions, or use another folder",
    ExitCode.DENIED,
)
_BROKEN: _Advice = (
    "the disk or network drive failed",
    "check the drive, then run the command again",
    ExitCode.MISSING,
)
_MEMORY: _Advice = (
    "no memory left",
    "end other programs, raise the limit (ulimit -v), or use smaller batches",
    ExitCode.MISSING,
)
_FILES: _Advice = ("too many open files", "raise the limit: ulimit -n 4096", ExitCode.MISSING)
_CONNECTION: _Advice = ("a connection broke", "run the command again", ExitCode.MISSING)
_GONE: _Advice = ("the file or folder is gone", "restore it, or run the command in another folder", ExitCode.MISSING)
_ADVICE: dict[int, _Advice] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _DENIED),
    **dict.fromkeys((errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE), _BROKEN),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), _FILES),
    **dict.fromkeys(
        (errno.EPIPE, errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ETIMEDOUT, errno.ENETUNREACH),
        _CONNECTION,
    ),
    errno.ENOMEM: _MEMORY,
    errno.ENOLCK: (
        "this file system has no locks",
        "move the project to another file system, or mount this one with locks",
        ExitCode.MISSING,
    ),
    errno.ENAMETOOLONG: ("the name is too long", "use a shorter name", ExitCode.USAGE),
    errno.ENOTDIR: ("part of this path is a file, not a folder", "move that file away", ExitCode.USAGE),
    errno.EISDIR: ("this is a folder, not a file", "move the folder away, or name a file", ExitCode.USAGE),
    errno.ELOOP: ("these links lead in a circle", "remove one of the links", ExitCode.USAGE),
}
_PLACES = ("HF_HUB_CACHE", "HF_XET_CACHE", "HF_HOME", "TORCH_HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME", "TMPDIR")
"""Variables that name a folder of a cache."""
_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")


@contextmanager
def system_errors(where: str) -> Iterator[None]:
    """Turn errors of the operating system into :class:`KdkitError`.

    Args:
        where: the folder in use, where an error names no file.
    """
    try:
        yield
    except KdkitError:
        raise
    except Exception as error:
        found = as_kdkit_error(error, where)
        if found is None:
            raise
        raise found from error


@contextmanager
def optional_write(what: str) -> Iterator[None]:
    """Turn errors of the operating system into a warning: the command goes on without what it wanted to keep.

    Args:
        what: is not kept.
    """
    try:
        yield
    except Exception as error:
        found = as_kdkit_error(error)
        if found is None:
            raise
        warnings.warn(f"{what} is not saved: {found.headline} ({found.why})", stacklevel=1)


def as_kdkit_error(error: BaseException, where: str = "") -> KdkitError | None:
    """The error of the operating system that ``error`` stands for; None if it is another one."""
    number = _number(error)
    advice = _ADVICE.get(number)
    if number == errno.ENOENT and not _here():
        advice, where = _GONE, "the current folder"
    if advice is None:
        return None
    what, fix, code = advice
    where = str(getattr(error, "filename", None) or where)
    for variable in _PLACES:
        if where and (place := os.environ.get(variable)) and Path(where).is_relative_to(place):
            fix = f"{fix}; the place comes from the environment variable {variable}"
            break
    why = os.strerror(number) if isinstance(error, OSError) else " ".join(str(error).split())[:200]
    return KdkitError("KD-BASE-002", f"{what}", where=where, why=why, fix=fix, code=code)


def is_lost_peer(error: BaseException) -> bool:
    """Whether another process of a distributed run has ended; torch raises its own types and plain RuntimeErrors."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return "DistError" in names or (isinstance(error, RuntimeError) and "gloo" in str(error))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine's or an accelerator's memory is used up."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY)


def _number(error: BaseException) -> int:
    """The ``errno`` of an error; libraries written in other languages have it in the message only."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    text = str(error)
    if is_out_of_memory(error):
        return errno.ENOMEM
    words = re.search(r"\bos error (\d+)|\berrno = (\d+)", text)
    return int(words[1] or words[2]) if words else 0


def _here() -> bool:
    """Whether the current folder still exists."""
    try:
        os.getcwd()
    except OSError:
        return False
    return True
