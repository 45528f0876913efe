"""Images in cells of Arrow files: ``at`` is the column and the number of the row."""

from __future__ import annotations

import bisect
import os
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import ImageLocation
from kdkit.plugins.readers.arrow_files import checked, open_arrow
from kdkit.plugins.readers.cells import cell_of
from kdkit.plugins.readers.forks import start_anew
from kdkit.plugins.readers.parquet_files import binary_leaf

MAX_FILES = 64
"""Files that stay mapped into memory; their pages belong to the system's cache."""
Key = tuple[Path, int, int, str]


class ArrowReader:
    """Maps a file into memory once; a random read touches the pages of its image alone."""

    def __init__(self) -> None:
        start_anew(self._reset)

    def _reset(self) -> None:
        self._lock = Lock()
        self._columns: OrderedDict[Key, tuple[list[Any], list[int]]] = OrderedDict()

    def content(self, location: ImageLocation) -> bytes:
        """The bytes in the cell, or in its field ``bytes``; none for an empty cell, as for an empty image file.

        Raises:
            KdkitError: the file, the column or the row does not exist.
        """
        column, row = cell_of(location, _no_image)
        with self._lock:
            parts, ends = self._column(location, column)
        number = bisect.bisect_right(ends, row)
        if number == len(ends):
            raise _no_image(location, f"the file has {ends[-1] if ends else 0} rows")
        return bytes(parts[number][row - (ends[number - 1] if number else 0)].as_py() or b"")

    def _column(self, location: ImageLocation, column: str) -> tuple[list[Any], list[int]]:
        """The images of each record batch, and the number of rows up to its end."""
        import pyarrow.compute as pc

        try:
            found = os.stat(location.file)
        except OSError as error:
            raise _no_image(location, error.strerror or str(error)) from None
        key = (location.file, found.st_size, found.st_mtime_ns, column)
        if key not in self._columns:
            with open_arrow(location.file) as (schema, batches):
                leaf = binary_leaf(schema, column)
                if leaf is None:
                    raise _no_image(location, f"no column of images '{column}'")
                parts, ends = list[Any](), list[int]()
                for batch in batches:
                    cells = checked(batch.column(column))
                    parts.append(cells if leaf == column else pc.struct_field(cells, "bytes"))
                    ends.append(len(cells) + (ends[-1] if ends else 0))
            self._columns[key] = (parts, ends)
            if len(self._columns) > MAX_FILES:
                self._columns.popitem(last=False)
        self._columns.move_to_end(key)
        return self._columns[key]


def _no_image(location: ImageLocation, why: str) -> KdkitError:
    return KdkitError(
        "KD-SRC-321",
        "the Arrow file has no such image",
        where=str(location),
        why=why,
        fix="save the data set again, or leave the row out",
    )
