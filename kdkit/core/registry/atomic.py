"""Writing a file so that it is there whole, or not at all; and what a disk can say about it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdkit.core.errors import ExitCode, KdkitError


def write_atomically(path: Path, content: bytes) -> None:
    """Replace ``path`` (or what it links to), keeping its mode; a crash leaves the old content."""
    path = path.resolve()
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        else:
            os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


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
            "no disk space left" if full else "no permission to read or write here",
            where=str(getattr(error, "filename", None) or where),
            why=os.strerror(number),
            fix="free some space and run the command again; nothing was left half-written" if full else "",
            code=ExitCode.MISSING if full else ExitCode.DENIED,
        ) from error
