"""Arrow IPC files: written for good, read by memory mapping.

A checksum follows the file's last byte: Arrow has none, and a changed text would be as valid as the old one.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

CHECKSUM = 4
"""Bytes of the CRC-32."""
ROWS = 65_536
"""Rows of a batch in a file."""


def write_table(table: pa.Table, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write ``path`` with the metadata in its schema."""
    schema = table.schema.with_metadata(dict(metadata or {}))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(table.replace_schema_metadata(schema.metadata), max_chunksize=ROWS)
    with pa.memory_map(str(path)) as source:
        checksum = zlib.crc32(source.read_buffer())
    with open(path, "ab") as file:
        file.write(checksum.to_bytes(CHECKSUM, "little"))


def read_table(path: Path) -> pa.Table:
    """The table of ``path``; its pages are read from the disk when they are used.

    Raises:
        OSError: the file is missing or cannot be read.
        ArrowException: the file is damaged.
    """
    with pa.memory_map(str(path)) as source:
        content = source.read_buffer()
    body = content[: max(content.size - CHECKSUM, 0)]
    if zlib.crc32(body) != int.from_bytes(content[body.size :].to_pybytes(), "little"):
        raise pa.ArrowInvalid("its checksum differs")
    table: Any = pa.ipc.open_file(pa.BufferReader(body)).read_all()
    table.validate()
    return table
