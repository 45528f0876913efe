"""The parts of a Parquet file with images alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from kdkit.core.contracts import ImageLocation
from kdkit.core.data.locations import read_content
from kdkit.plugins.readers.parquet_parts import image_parts
from tests.errors import raises_error
from tests.plugins.sources.archives import png, write_parquet


def test_each_group_has_a_part_and_the_rest_lists_the_rows(tmp_path: Path) -> None:
    """Without its parts a file still gives its texts; with one of them, the images in it."""
    from pyarrow import parquet

    pngs = [png(n) for n in range(5)]
    columns: dict[str, Any] = {
        "text": ["a", "b", "c", "d", "e"],
        "image": [{"bytes": one, "path": "x.png"} for one in pngs],
    }
    whole = write_parquet(tmp_path / "a.parquet", columns, row_group=2).read_bytes()
    parts = image_parts(io.BytesIO(whole))
    assert [(part.column, part.first, part.stop) for part in parts] == [
        ("image", 0, 2), ("image", 2, 4), ("image", 4, 5)
    ]  # fmt: skip
    assert all(part.unpacked >= sum(map(len, pngs[part.first : part.stop])) for part in parts)
    lacking = bytearray(whole)
    for part in (parts[0], parts[2]):
        lacking[part.start : part.end] = bytes(part.end - part.start)
    (tmp_path / "b.parquet").write_bytes(lacking)
    table = parquet.ParquetFile(tmp_path / "b.parquet").read(columns=["text", "image.path"])  # as the source does
    assert table.column("text").to_pylist() == columns["text"]
    for row in (2, 3):
        place = ImageLocation("parquet", tmp_path / "b.parquet", ("image", row), "x.png")
        assert read_content(place) == pngs[row]
    with raises_error("KD-SRC-077"):
        read_content(ImageLocation("parquet", tmp_path / "b.parquet", ("image", 0), "x.png"))


def test_a_cut_file_is_told(tmp_path: Path) -> None:
    whole = write_parquet(tmp_path / "a.parquet", {"image": [png(0)]}).read_bytes()
    with raises_error("KD-SRC-510"):
        image_parts(io.BytesIO(whole[:-9]))
