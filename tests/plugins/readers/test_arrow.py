"""Images in cells of Arrow files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kdkit.core.contracts import ImageLocation
from kdkit.plugins.readers import arrow
from kdkit.plugins.readers.arrow import ArrowReader
from tests.errors import raises_error
from tests.plugins.sources.archives import png, write_arrow

IMAGES = [png(seed) for seed in range(10)]


def cells(path: Path, column: str = "image") -> list[ImageLocation]:
    return [ImageLocation("arrow", path, (column, row)) for row in range(len(IMAGES))]


def test_rows_of_all_batches_are_read_in_any_order(tmp_path: Path) -> None:
    structs = [None, *({"bytes": image, "path": None} for image in IMAGES[1:])]
    path = write_arrow(tmp_path / "a.arrow", {"image": IMAGES, "struct": structs, "n": list(range(10))}, batch=3)
    reader = ArrowReader()
    for row in (9, 0, 5, 4, 9, 3):
        assert reader.content(cells(path)[row]) == IMAGES[row]
        assert reader.content(cells(path, "struct")[row]) == (IMAGES[row] if row else b"")
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ArrowReader().content, cells(path) * 4)) == IMAGES * 4


def test_a_changed_file_is_read_again_and_few_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "MAX_FILES", 2)
    reader = ArrowReader()
    paths = [write_arrow(tmp_path / f"{n}.arrow", {"image": IMAGES[n:]}) for n in range(4)]
    assert [reader.content(cells(path)[0]) for path in paths] == IMAGES[:4]
    assert len(reader._columns) == 2
    write_arrow(tmp_path / "new.arrow", {"image": [*IMAGES, png(99)]}).replace(paths[3])
    assert reader.content(cells(paths[3])[0]) == IMAGES[0]


def test_what_is_no_image_is_an_error(tmp_path: Path) -> None:
    path = write_arrow(tmp_path / "a.arrow", {"image": IMAGES, "text": ["a"] * 10})
    for at in (("image", 10), ("text", 0), ("other", 0), ("image", -1), (0, "image"), ()):
        with raises_error("KD-SRC-321"):
            ArrowReader().content(ImageLocation("arrow", path, at))
    with raises_error("KD-SRC-321"):
        ArrowReader().content(ImageLocation("arrow", tmp_path / "gone.arrow", ("image", 0)))
