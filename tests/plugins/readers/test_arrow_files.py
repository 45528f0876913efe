"""Arrow files are opened whole or not at all."""

from __future__ import annotations

import struct
from pathlib import Path

import pyarrow as pa
import pytest

from kdkit.core.contracts import ImageLocation
from kdkit.plugins.readers.arrow import ArrowReader
from kdkit.plugins.readers.arrow_files import checked, open_arrow
from tests.errors import raises_error
from tests.plugins.sources.archives import write_arrow

COLUMNS = {"text": [f"text {row}" for row in range(10)]}


def texts(path: Path) -> list[str]:
    with open_arrow(path) as (schema, batches):
        assert schema.names == ["text"]
        return [text for batch in batches for text in batch.column("text").to_pylist()]


def test_streams_and_files_are_read(tmp_path: Path) -> None:
    assert texts(write_arrow(tmp_path / "a.arrow", COLUMNS)) == COLUMNS["text"]
    table = pa.table(COLUMNS)
    with pa.OSFile(str(tmp_path / "b.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    assert texts(tmp_path / "b.arrow") == COLUMNS["text"]


@pytest.mark.parametrize("left", [0, 5, 0.5, -8])
def test_a_cut_stream_is_refused(tmp_path: Path, left: float) -> None:
    """Also one that was cut between two batches, which Arrow's own reader takes for whole."""
    path = write_arrow(tmp_path / "a.arrow", COLUMNS)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * left) if isinstance(left, float) else left])
    with raises_error("KD-SRC-320", where=str(path)):
        texts(path)


def test_places_outside_of_the_file_are_refused(tmp_path: Path) -> None:
    """Reading such a value would end the process, or give what lies elsewhere in its memory."""
    path = write_arrow(tmp_path / "a.arrow", {"image": [b"a" * 100, b"b" * 100]})
    content, places = path.read_bytes(), struct.pack("<3i", 0, 100, 200)
    assert places in content
    path.write_bytes(content.replace(places, struct.pack("<3i", 0, 2_000_000_000, 200)))
    with open_arrow(path) as (_, batches):
        assert sum(batch.num_rows for batch in batches) == 2
    with raises_error("KD-SRC-320", where=str(path)), open_arrow(path) as (_, batches):
        list(map(checked, batches))
    with raises_error("KD-SRC-320", where=str(path)):
        ArrowReader().content(ImageLocation("arrow", path, ("image", 0)))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with raises_error("KD-SRC-320"):
        texts(tmp_path / "gone.arrow")
