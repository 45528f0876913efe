"""Images in cells of Parquet files."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.contracts import ImageLocation
from kdkit.core.data.digests import file_digest
from kdkit.core.data.images import decode
from kdkit.core.data.locations import image_reader
from kdkit.plugins.readers import parquet
from kdkit.plugins.readers.parquet import ParquetReader
from tests.errors import raises_error
from tests.plugins.sources.archives import png, write_parquet

IMAGES = [png(seed) for seed in range(10)]


def cells(path: Path, column: str = "image") -> list[ImageLocation]:
    return [ImageLocation("parquet", path, (column, row), f"row {row}") for row in range(len(IMAGES))]


@pytest.mark.parametrize("compression", ["none", "snappy"])
def test_rows_of_all_row_groups_are_read_in_any_order(tmp_path: Path, compression: str) -> None:
    structs = [{"bytes": image, "path": None} for image in IMAGES]
    columns: dict[str, Any] = {"image": IMAGES, "struct": structs, "number": list(range(10))}
    path = write_parquet(tmp_path / "a.parquet", columns, row_group=3, compression=compression)
    reader = ParquetReader()
    for row in (9, 0, 5, 4, 9, 3):
        assert reader.content(cells(path)[row]) == IMAGES[row]
        assert reader.content(cells(path, "struct")[row]) == IMAGES[row]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ParquetReader().content, cells(path) * 4)) == IMAGES * 4


def test_few_files_and_row_groups_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "MAX_BYTES", 1)
    reader = ParquetReader()
    paths = [write_parquet(tmp_path / f"{n}.parquet", {"image": IMAGES}) for n in range(parquet.MAX_FILES + 4)]
    before = len(os.listdir("/dev/fd")) if os.path.isdir("/dev/fd") else 0
    for path in paths:
        assert reader.content(cells(path)[7]) == IMAGES[7]
    assert len(reader._files) == parquet.MAX_FILES
    assert len(reader._groups) == 1
    if before:
        assert len(os.listdir("/dev/fd")) - before <= parquet.MAX_FILES


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path, reader = write_parquet(tmp_path / "a.parquet", {"image": IMAGES}), ParquetReader()
    assert reader.content(cells(path)[0]) == IMAGES[0]
    write_parquet(path, {"image": [*IMAGES[::-1], png(99)]})
    assert reader.content(cells(path)[0]) == IMAGES[9]


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": [IMAGES[0], None, b""], "text": ["a", "b", "c"]})
    places: list[tuple[str | int | float | None, ...]]
    for row in (1, 2):
        assert isinstance(file_digest(ImageLocation("parquet", path, ("image", row))), int)
        with raises_error("KD-DATA-003"):
            decode(ImageLocation("parquet", path, ("image", row)))
    places = [("image", 3), ("text", 0), ("gone", 0), ("image", -1), (0, 0), ()]
    for at in places:
        with raises_error("KD-SRC-077", where=f"{path}[x]"):
            ParquetReader().content(ImageLocation("parquet", path, at, "x"))
    path.write_bytes(path.read_bytes()[:-20])
    with raises_error("KD-SRC-079", where=str(path)):
        ParquetReader().content(cells(path)[0])


def content_in_child(place: ImageLocation) -> bytes:
    return image_reader(place.reader).content(place)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_too(tmp_path: Path, method: str) -> None:
    """Also children that were forked while another thread held the reader's lock."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork here")
    places = cells(write_parquet(tmp_path / "a.parquet", {"image": IMAGES}))
    reader = image_reader("parquet")
    assert isinstance(reader, ParquetReader)
    assert reader.content(places[0]) == IMAGES[0]
    with reader._lock, multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.map_async(content_in_child, places).get(timeout=300) == IMAGES


def test_images_in_several_chunks_and_types_of_bytes(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    for kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
        path = tmp_path / f"{kind}.parquet"
        write_table(pa.table({"image": pa.array(IMAGES, kind)}), path, row_group_size=3)
        assert [ParquetReader().content(place) for place in cells(path)] == IMAGES


def test_a_row_group_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"image": IMAGES})
    monkeypatch.setattr(parquet, "MAX_GROUP", 10)
    with raises_error("KD-SRC-113"):
        ParquetReader().content(cells(path)[0])
