"""Arrow IPC files: written for good, read by memory mapping."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

ROWS = 65_536
"""Rows of a batch in a file."""


def write_table(table: pa.Table, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write ``path`` with the metadata in its schema."""
    schema = table.schema.with_metadata(dict(metadata or {}))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(table.replace_schema_metadata(schema.metadata), max_chunksize=ROWS)


def read_table(path: Path) -> pa.Table:
    """The table of ``path``; its pages are read from the disk when they are used.

    Raises:
        OSError: the file is missing or cannot be read.
        ArrowException: the file is damaged.
    """
    with pa.memory_map(str(path)) as source:
        table: Any = pa.ipc.open_file(source).read_all()
    table.validate()
    return table
