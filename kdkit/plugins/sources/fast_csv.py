"""CSV manifests read by Arrow, a column at a time; see :mod:`~kdkit.plugins.sources.fast_columns`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdkit.core.base.errors import KdkitError
from kdkit.plugins.sources.csv_blocks import Records, find_records
from kdkit.plugins.sources.fast_columns import ColumnReader, Unusual, can_read

if TYPE_CHECKING:
    import pyarrow as pa

    from kdkit.plugins.sources.rows import RowReader

BLOCK = 1 << 24
"""Bytes of a batch."""


def read_columns(manifest: RowReader, delimiter: str) -> list[pa.RecordBatch] | None:
    """The samples as batches, as sources may yield them; None if the rows must be read one by one."""
    if not can_read(manifest):
        return None
    records = find_records(manifest.location, delimiter)
    if records is None or len(set(records.header)) < len(records.header):
        return None
    import pyarrow as pa

    try:
        reader = ColumnReader(manifest, records.header, manifest.location.parent / manifest.image_root)
        return _batches(manifest, reader, records, delimiter)
    except (Unusual, KdkitError, pa.ArrowException):
        return None


def _batches(manifest: RowReader, reader: ColumnReader, records: Records, delimiter: str) -> list[pa.RecordBatch]:
    """All rows.

    Raises:
        Unusual: a row that only the other reader understands.
    """
    import pyarrow as pa
    from pyarrow import csv

    names = sorted(set(reader.columns.values()))
    table = csv.open_csv(
        str(manifest.location),
        csv.ReadOptions(use_threads=False, block_size=BLOCK, skip_rows=1, column_names=records.header),
        csv.ParseOptions(delimiter=delimiter, newlines_in_values=records.multiline),
        csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), include_columns=names),
    )
    found, start = [], 0
    for batch in table:
        lines = pa.array(records.lines[start : start + batch.num_rows])
        columns = {name: batch.column(name) for name in names}
        found.append(reader.batch(columns, manifest.location, lines))
        start += batch.num_rows
    if start != len(records.lines):
        raise Unusual
    return found
