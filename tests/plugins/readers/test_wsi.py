"""Tiles of slides, against tifffile's own reading of the same files."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdkit.core.contracts import ImageLocation
from kdkit.core.data.digests import file_digest
from kdkit.core.data.images import UnreadableImage, decode
from kdkit.core.data.locations import read_content
from kdkit.plugins.readers.array import ArrayReader
from kdkit.plugins.readers.wsi import MAX_SIDE, SlideReader
from tests.errors import raises_error
from tests.plugins.sources.slide_files import Pixels, noise, tifffile, write_slide


def tile(path: Path, *at: int) -> ImageLocation:
    return ImageLocation("wsi", path, at, "tile")


def pixels_of(path: Path, *at: int) -> Pixels:
    return np.asarray(decode(tile(path, *at)))


@pytest.mark.parametrize("described", ["Aperio Image Library v1", ""])
def test_pixels_are_those_of_tifffile(tmp_path: Path, described: str) -> None:
    path = write_slide(tmp_path / "a.tiff", noise(300, 420), described=described)
    with tifffile.TiffFile(path) as file:
        whole, small = file.pages[0].asarray(), next(p for p in file.pages[1:] if p.is_tiled).asarray()
    assert np.array_equal(pixels_of(path, 37, 101, 0, 90, 90), whole[101:191, 37:127])
    assert np.array_equal(pixels_of(path, 40, 80, 1, 30, 30), small[20:50, 10:40])
    expected = Image.fromarray(whole[:100, :100]).resize((50, 50), Image.Resampling.BICUBIC)
    assert np.array_equal(pixels_of(path, 0, 0, 0, 100, 50), np.asarray(expected))


def test_what_lies_beyond_the_slide_is_white(tmp_path: Path) -> None:
    pixels = noise(100, 100)
    found = pixels_of(write_slide(tmp_path / "a.svs", pixels), 80, 90, 0, 32, 32)
    assert np.array_equal(found[:10, :20], pixels[90:, 80:])
    assert (found[10:] == 255).all()
    assert (found[:, 20:] == 255).all()


def test_the_digest_is_that_of_the_pixels(tmp_path: Path) -> None:
    pixels = noise(200, 200)
    svs, plain = write_slide(tmp_path / "a.svs", pixels), write_slide(tmp_path / "b.tiff", pixels, described="")
    digest = file_digest(tile(svs, 0, 0, 0, 64, 64))
    assert isinstance(digest, int)
    assert digest == file_digest(tile(plain, 0, 0, 0, 64, 64))  # without label and header
    np.save(tmp_path / "c.npy", pixels[None, :64, :64])
    assert read_content(tile(svs, 0, 0, 0, 64, 64)) == ArrayReader().content(
        ImageLocation("array", tmp_path / "c.npy", ("", 0))
    )
    assert digest != file_digest(tile(svs, 64, 0, 0, 64, 64))
    pixels[3, 3] ^= 1
    assert digest != file_digest(tile(write_slide(svs, pixels), 0, 0, 0, 64, 64))


def test_wrong_places(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.svs", noise(100, 120))
    for at in [(120, 0, 0, 8, 8), (0, 100, 0, 8, 8), (-1, 0, 0, 8, 8), (0, 0, 2, 8, 8), (0, 0, 0, 0, 8), (0, 0)]:
        with raises_error("KD-SRC-344", where=f"{path}[tile]"):
            read_content(tile(path, *at))
    with raises_error("KD-SRC-344"):
        read_content(tile(path, 0, 0, 0, 8, MAX_SIDE + 1))
    with raises_error("KD-SRC-342", where=f"{path}[tile]"):
        read_content(tile(path, 0, 0, 0, 1_000_000, 8))


def test_slides_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_bytes(b"Doe^Jane " * 100)
    with raises_error("KD-SRC-341", where=f"{tmp_path / 'a.svs'}[tile]") as caught:
        read_content(tile(tmp_path / "a.svs", 0, 0, 0, 8, 8))
    assert "Doe" not in f"{caught.value.why}{caught.value.fix}"
    with pytest.raises(FileNotFoundError):
        read_content(tile(tmp_path / "b.svs", 0, 0, 0, 8, 8))


def test_damaged_pixels_are_unreadable_and_others_are_read(tmp_path: Path) -> None:
    pixels = noise(128, 256)
    path = write_slide(tmp_path / "a.tiff", pixels, described="")
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        place = page.tags["TileOffsets"].valueoffset
    content = bytearray(path.read_bytes())
    content[place : place + 4] = (2**31).to_bytes(4, "little")  # the first block is behind the end of the file
    path.write_bytes(content)
    with pytest.raises(UnreadableImage) as caught:
        decode(tile(path, 0, 0, 0, 64, 64))
    assert (caught.value.what, caught.value.where) == ("damaged pixels in this slide", f"{path}[tile]")
    assert isinstance(file_digest(tile(path, 0, 0, 0, 64, 64)), int)  # so that skip_unreadable may skip it
    assert np.array_equal(pixels_of(path, 64, 64, 0, 64, 64), pixels[64:, 64:128])


def test_threads_read_many_slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More slides than may be open, read by several threads."""
    monkeypatch.setattr("kdkit.plugins.readers.wsi.MAX_SLIDES", 2)
    slides = {write_slide(tmp_path / f"{n}.svs", noise(96, 96, n)): noise(96, 96, n) for n in range(5)}
    reader, started = SlideReader(), threading.Barrier(4)

    def read(thread: int) -> bool:
        started.wait()
        order = np.random.default_rng(thread).integers(0, 5, 40)
        paths = [list(slides)[n] for n in order]
        locations = [tile(path, 8, 16, 0, 48, 48) for path in paths]
        found = [np.asarray(reader.decode(one, reader.content(one))) for one in locations]
        return all(np.array_equal(one, slides[path][16:64, 8:56]) for one, path in zip(found, paths, strict=True))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))
