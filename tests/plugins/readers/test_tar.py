"""Members of tar files."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from kdkit.core.contracts import ImageLocation
from kdkit.plugins.readers.tar import TarReader
from tests.errors import raises_error
from tests.plugins.sources.archives import png, write_tar

NAMES = ("a.png", "folder/b.png", "x" * 90 + "/" + "y" * 60 + ".png", "z" * 101 + ".png", "\u00e9tude.png")


def locate(path: Path) -> dict[str, ImageLocation]:
    with tarfile.open(path) as archive:
        return {m.name: ImageLocation("tar", path, (m.offset_data, m.size), m.name) for m in archive}


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_read_by_their_offset_whatever_the_format_and_name(tmp_path: Path, format: int) -> None:
    names = NAMES[:3] if format == tarfile.USTAR_FORMAT else NAMES
    contents = {name: png(number) for number, name in enumerate(names)}
    path = write_tar(tmp_path / "a.tar", contents, format)
    assert {name: TarReader().content(place) for name, place in locate(path).items()} == contents


def test_a_file_that_was_written_again_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.png": png(0), "b.png": png(1)})
    places = locate(path)
    write_tar(path, {"b.png": png(1), "a.png": png(0)})
    for place in places.values():
        with raises_error("KD-SRC-076", where=str(place)):
            TarReader().content(place)


def test_a_cut_file_and_strange_places_are_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.png": png(0)})
    place = locate(path)["a.png"]
    path.write_bytes(path.read_bytes()[:900])
    with raises_error("KD-SRC-076"):
        TarReader().content(place)
    strange: list[tuple[str | int | float | None, ...]] = [(), (512,), ("512", 3), (0, 10), (512, -1), (10**12, 5)]
    for at in [*strange, (None, None), (512, 1, 2)]:
        with raises_error("KD-SRC-076"):
            TarReader().content(ImageLocation("tar", path, at, "a.png"))
