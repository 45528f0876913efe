"""Images in cells of Parquet files: ``at`` is the column and the number of the row."""

from __future__ import annotations

import bisect
import os
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import ImageLocation
from kdkit.plugins.readers.cells import cell_of
from kdkit.plugins.readers.forks import start_anew
from kdkit.plugins.readers.parquet_files import binary_leaf, open_parquet

MAX_FILES = 8
"""Parquet files that stay open."""
MAX_BYTES = 2**28
"""Bytes of decompressed row groups that are kept; the last one always is."""

MAX_GROUP = 2**32
"""Bytes of images in a row group, decompressed."""

Stamp = tuple[int, int]
FileKey = tuple[Path, Stamp]


class ParquetReader:
    """Decompresses a row group once for the images in it that are read one after the other.

    Random reads of a file with large row groups decompress each of them again and again: write images in row groups of
    about 100 rows, as the Hub does.
    """

    def __init__(self) -> None:
        start_anew(self._reset)

    def _reset(self) -> None:
        self._lock = Lock()
        self._files: OrderedDict[FileKey, tuple[Any, list[int]]] = OrderedDict()
        self._groups: OrderedDict[tuple[FileKey, str, int], Any] = OrderedDict()
        self._bytes = 0

    def content(self, location: ImageLocation) -> bytes:
        """The bytes in the cell, or in its field ``bytes``; none for an empty cell, as for an empty image file.

        Raises:
            KdkitError: the file, the column or the row does not exist.
        """
        column, row = cell_of(location, _no_image)
        with self._lock:
            group, first = self._group(location, column, row)
            value = group[row - first].as_py()
        return bytes(value or b"")

    def _group(self, location: ImageLocation, column: str, row: int) -> tuple[Any, int]:
        """The images of the row group with ``row``, and its first row."""
        found = os.stat(location.file)
        key = (location.file, (found.st_size, found.st_mtime_ns))
        if key not in self._files:
            file = open_parquet(location.file)
            ends, end = [], 0
            for number in range(file.num_row_groups):
                end += file.metadata.row_group(number).num_rows
                ends.append(end)
            self._files[key] = (file, ends)
        self._files.move_to_end(key)
        while len(self._files) > MAX_FILES:
            self._files.popitem(last=False)[1][0].close()
        file, ends = self._files[key]
        number = bisect.bisect_right(ends, row)
        if number == len(ends):
            raise _no_image(location, f"the file has {ends[-1] if ends else 0} rows")
        if (key, column, number) not in self._groups:
            self._groups[key, column, number] = self._read(location, file, number, column)
            self._bytes += self._groups[key, column, number].nbytes
            while len(self._groups) > 1 and self._bytes > MAX_BYTES:
                self._bytes -= self._groups.popitem(last=False)[1].nbytes
        self._groups.move_to_end((key, column, number))
        return self._groups[key, column, number], ends[number - 1] if number else 0

    @staticmethod
    def _read(location: ImageLocation, file: Any, number: int, column: str) -> Any:
        leaf = binary_leaf(file.schema_arrow, column)
        if leaf is None:
            raise _no_image(location, f"no column of images '{column}'")
        group = file.metadata.row_group(number)
        sizes = [group.column(place) for place in range(group.num_columns)]
        size = sum(part.total_uncompressed_size for part in sizes if part.path_in_schema == leaf)
        if size > MAX_GROUP:
            raise KdkitError(
                "KD-SRC-113",
                "the row group is too large for random access",
                where=str(location),
                why=f"{size / 2**30:.1f} GiB of images; a whole row group is read for each",
                fix="write the file again in row groups of about 100 rows (pyarrow: row_group_size=100)",
            )
        try:
            values = file.read_row_group(number, columns=[leaf], use_threads=False).column(0)
            if leaf == column:
                return values  # in chunks: above 2 GiB they cannot be one array
            import pyarrow as pa

            return pa.chunked_array([chunk.field("bytes") for chunk in values.chunks], values.type.field("bytes").type)
        except (OSError, ValueError, NotImplementedError, MemoryError) as error:  # ArrowInvalid is a ValueError
            raise _no_image(location, str(error)) from None


def _no_image(location: ImageLocation, why: str) -> KdkitError:
    return KdkitError(
        "KD-SRC-077",
        "the Parquet file has no such image",
        where=str(location),
        why=why,
        fix="write the file again, or leave the row out",
    )
