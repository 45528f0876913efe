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
BLOCK = 1 << 20
ROWS = 65_536
"""Rows of a batch in a file."""


def write_table(table: pa.Table, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write ``path`` with the metadata in its schema."""
    schema = table.schema.with_metadata(dict(metadata or {}))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(table.replace_schema_metadata(schema.metadata), max_chunksize=ROWS)
    checksum = _checksum(path, path.stat().st_size)
    with open(path, "ab") as file:
        file.write(checksum)


def read_table(path: Path) -> pa.Table:
    """The table of ``path``; its pages are read from the disk when they are used.

    Raises:
        OSError: the file is missing or cannot be read.
        ArrowException: the file is damaged.
    """
    with pa.memory_map(str(path)) as source:
        content = source.read_buffer()
    body = content[: max(content.size - CHECKSUM, 0)]
    if _checksum(path, body.size) != content[body.size :].to_pybytes():
        raise pa.ArrowInvalid("its checksum differs")
    table: Any = pa.ipc.open_file(pa.BufferReader(body)).read_all()
    table.validate()
    return table


def _checksum(path: Path, size: int) -> bytes:
    """Of the first ``size`` bytes, read in blocks: through the mapping, all pages would stay in memory."""
    found = 0
    with open(path, "rb", buffering=0) as file:
        while size > 0 and (block := file.read(min(size, BLOCK))):
            found = zlib.crc32(block, found)
            size -= len(block)
    return found.to_bytes(CHECKSUM, "little")
