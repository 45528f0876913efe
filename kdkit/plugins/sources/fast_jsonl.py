"""JSON Lines manifests read by Arrow, a column at a time; see :mod:`~kdkit.plugins.sources.fast_columns`."""

from __future__ import annotations

import json
import mmap
import re
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.errors import KdkitError
from kdkit.plugins.sources.csv_blocks import is_plain_utf8, places_of
from kdkit.plugins.sources.fast_columns import FIELDS, ColumnReader, Unusual, can_read
from kdkit.plugins.sources.records import parse_json

if TYPE_CHECKING:
    import pyarrow as pa

    from kdkit.plugins.sources.rows import RowReader

BLOCK = 1 << 24
"""Bytes that are parsed at once; a longer line is read by the other reader."""
ESCAPED = re.compile(rb"\\u00[0-7]")
"""Escaped ASCII: a key or a NUL might be written so."""


def read_jsonl_columns(manifest: RowReader) -> list[pa.RecordBatch] | None:
    """The samples as batches, as sources may yield them; None if the rows must be read one by one."""
    import pyarrow as pa

    if not can_read(manifest) or manifest.location.stat().st_size == 0:
        return None
    try:
        lines, keys = _look_at(manifest)
        reader = ColumnReader(manifest, keys, manifest.location.parent / manifest.image_root)
        return _batches(manifest, reader, lines)
    except (Unusual, KdkitError, pa.ArrowException):
        return None


def _look_at(manifest: RowReader) -> tuple[NDArray[np.int64], set[str]]:
    """(lines with a record, those of the wanted keys that the file has anywhere).

    Raises:
        Unusual: a file that Arrow's reader and Python's could read in different ways.
    """
    wanted = {manifest.columns.get(name, name) for name in FIELDS}
    with (
        open(manifest.location, "rb") as handle,
        mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        if content[:1] != b"{" or not is_plain_utf8(content) or ESCAPED.search(content):
            raise Unusual
        if content.find(b'"extra"') >= 0:
            raise Unusual
        keys = {key for key in wanted if content.find(f'"{key}"'.encode()) >= 0}
        newlines = places_of(content, b"\n"[0])
        starts = np.append(0, newlines + 1)
        stops = np.append(newlines, len(content))
        whole = np.frombuffer(content, dtype=np.uint8)
        first = whole[np.minimum(starts, len(content) - 1)]
        empty = (stops == starts) | ((stops == starts + 1) & (first == b"\r"[0]))
        plain = bool((first[~empty] == b"{"[0]).all())
        del whole, first  # the mapping cannot be closed before
        if not plain:
            raise Unusual
    return np.flatnonzero(~empty).astype(np.int64) + 1, keys


def _batches(manifest: RowReader, reader: ColumnReader, lines: NDArray[np.int64]) -> list[pa.RecordBatch]:
    """All rows.

    Raises:
        Unusual: a row that only the other reader understands.
    """
    import pyarrow as pa
    from pyarrow import json as arrow_json

    names = sorted(set(reader.columns.values()))
    table = arrow_json.read_json(
        str(manifest.location),
        arrow_json.ReadOptions(use_threads=False, block_size=BLOCK),
        arrow_json.ParseOptions(
            explicit_schema=pa.schema([(name, pa.string()) for name in names]),
            newlines_in_values=False,
            unexpected_field_behavior="ignore",
        ),
    )
    if table.num_rows != len(lines):
        raise Unusual
    for field, name in reader.columns.items():  # a null may stand for a key that a row lacks
        if table.column(name).null_count and (field in manifest.columns or field == "id"):
            raise Unusual
    found, start = [], 0
    for batch in table.to_batches():
        columns = {name: batch.column(name) for name in names}
        place = pa.array(lines[start : start + batch.num_rows])
        found.append(reader.batch(columns, manifest.location, place))
        start += batch.num_rows
    return found


def refuse_odd_value(manifest: RowReader) -> None:
    """Look at the first record where a field seems to be a fraction, true or false: the other reader comes to it late.

    Raises:
        KdkitError: with ``file:line``; that record is wrong.
    """
    names = b"|".join(re.escape(json.dumps(name).encode()) for name in manifest.field_columns())
    odd = re.compile(rb"(?:" + names + rb")\s*:\s*(?:-?\d+[.eE]|true|false|NaN|-?Infinity)")
    if manifest.location.stat().st_size == 0:
        return
    with (
        open(manifest.location, "rb") as handle,
        mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        if (found := odd.search(content)) is None:
            return
        start = content.rfind(b"\n", 0, found.start()) + 1
        end = content.find(b"\n", found.start())
        line, number = content[start : end if end >= 0 else len(content)], content[:start].count(b"\n") + 1
    try:
        row = parse_json(line.decode())
    except (ValueError, RecursionError):
        return  # the other reader says so
    if isinstance(row, dict):
        manifest.require_texts(row, f"{manifest.location}:{number}")
