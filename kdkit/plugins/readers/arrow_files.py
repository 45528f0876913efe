"""Opening Arrow files as the library ``datasets`` writes them: streams, or files of Arrow's IPC format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError

END = b"\xff\xff\xff\xff\0\0\0\0"
"""The last bytes of a whole stream; Arrow's reader takes a stream that was cut between two batches for a whole one."""


def checked(found: Any) -> Any:
    """A batch or an array, after a check of its values' places and its UTF-8: wrong ones would end the process.

    Raises:
        ValueError: it is damaged; within :func:`open_arrow` this becomes its error.
    """
    found.validate(full=True)
    return found


@contextmanager
def open_arrow(path: Path) -> Iterator[tuple[Any, Iterator[Any]]]:
    """(schema, record batches), mapped into memory: columns that are not read cost nothing.

    Values are not checked; :func:`checked` does it for those that are used.

    Raises:
        KdkitError: this is no whole Arrow file, also while the batches are read.
    """
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            try:
                stream = pa.ipc.open_stream(source)
            except pa.ArrowInvalid:
                file = pa.ipc.open_file(source)
                yield file.schema, (file.get_batch(number) for number in range(file.num_record_batches))
                return
            source.seek(max(source.size() - len(END), 0))
            if source.read() != END:
                raise pa.ArrowInvalid("its end is missing: it was cut, or is still being written")
            source.seek(0)
            stream = pa.ipc.open_stream(source)
            yield stream.schema, iter(stream)
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise KdkitError(
            "KD-SRC-320",
            "not a whole Arrow file",
            where=str(path),
            why=str(error).partition("\n")[0],
            fix="save or copy the data set again",
            code=ExitCode.MISSING if isinstance(error, FileNotFoundError) else ExitCode.USAGE,
        ) from None
