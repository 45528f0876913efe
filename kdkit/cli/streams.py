"""The standard streams of the process: stdout for a command's data alone, and a stderr that ends no run."""

from __future__ import annotations

import os
import select
import sys
from typing import Any, TextIO, cast

from kdkit.core.base.errors import ExitCode, KdkitError

_data: TextIO | None = None
"""Receives the JSON document of ``--json``, while ``sys.stdout`` is stderr."""


class TolerantStream:
    """A stream whose write errors are ignored: a full disk or a closed terminal must not end hours of work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_streams() -> None:
    """Prepare the streams of the process.

    What plugins, libraries and other programs write to file descriptor 1 goes to stderr. Characters that a terminal
    cannot show are escaped. Closed descriptors become the null device: otherwise the next file would take their number.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    encoding = sys.stdout.encoding if sys.stdout else "utf-8"
    errors = sys.stderr or open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = cast(TextIO, TolerantStream(errors))
    data = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = open(data, "w", encoding=encoding, errors="backslashreplace")  # noqa: SIM115  # lives to the end


def reserve_stdout() -> None:
    """From here on, :func:`write_data` alone writes to stdout; ``print`` writes to stderr."""
    global _data
    _data, sys.stdout = sys.stdout, sys.stderr


def write_data(text: str) -> None:
    """Print to stdout.

    Raises:
        KdkitError: it cannot be written.
        BrokenPipeError: its reader has gone.
    """
    try:
        print(text, file=data_stream(), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _unwritable(error) from error


def flush_data() -> None:
    """Write what is buffered; errors as :func:`write_data`."""
    try:
        data_stream().flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _unwritable(error) from error


def data_stream() -> TextIO:
    """The stream of a command's data."""
    return _data or sys.stdout


def lend_stdout() -> None:
    """Processes that are started from here on inherit the command's stdout: they print its data."""
    os.dup2(data_stream().fileno(), 1)


def drop_data() -> None:
    """Send what is still buffered, and everything later, to the null device."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), data_stream().fileno())


def reader_has_gone() -> bool:
    """Whether stdout is a pipe without a reader."""
    poll = select.poll()
    poll.register(data_stream().fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _unwritable(error: OSError) -> KdkitError:
    drop_data()
    return KdkitError(
        "KD-CLI-015",
        "the output cannot be written; the command itself is done",
        where="stdout",
        why=os.strerror(error.errno or 0),
        fix="free space or choose another file for the output, and run the command again",
        code=ExitCode.MISSING,
    )
