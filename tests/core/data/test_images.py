"""Decoding of images."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, features

from kdkit.core.contracts import ImageOptions, Sample
from kdkit.core.data.images import PIXELS, decode, decoding_threads, open_further_images, open_image
from tests.core.features.small import paint
from tests.errors import raises_error


def sample_at(path: Path) -> Sample:
    return Sample("s", path, "text", "domain")


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK", "LA"])
def test_images_of_any_8_bit_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.tiff"
    Image.new("RGB", (5, 4), (200, 200, 200)).convert(mode).save(path)
    image = open_image(sample_at(path))
    assert (image.mode, image.size) == ("RGB", (5, 4))


def test_unreadable_images_are_refused(tmp_path: Path) -> None:
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(deep)
    with raises_error("KD-DATA-001", mentions=("8",)):
        open_image(sample_at(deep))
    whole = paint(tmp_path / "whole.png", seed=1).read_bytes()
    for content in (b"", b"text", whole[:-30], whole[:40]):
        (tmp_path / "bad.png").write_bytes(content)
        with raises_error("KD-DATA-001", where=str(tmp_path / "bad.png"), mentions=("'s'",)):
            open_image(sample_at(tmp_path / "bad.png"))


def png_16(path: Path, color: int, channels: int) -> None:
    """A PNG of 16 bits per sample, which Pillow cannot write."""
    rows = b"".join(b"\0" + struct.pack(">H", 4095) * channels * 4 for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 16, color, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    parts = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def tiff_16(path: Path) -> None:
    """A TIFF of 16-bit RGB, which Pillow cannot write."""
    entries = [(256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 256), (277, 3, 1, 3), (278, 3, 1, 4), (279, 4, 1, 96)]
    table = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    head = b"II*\0" + struct.pack("<I", 16) + struct.pack("<HHH", 16, 16, 16) + bytes(2)
    path.write_bytes((head + table).ljust(256, b"\0") + struct.pack("<H", 4095) * 48)


def test_deep_images_are_recognized_by_their_file(tmp_path: Path) -> None:
    """Pillow reads them with a mode of 8 bits, and keeps the high byte of each sample."""
    for color, channels in ((2, 3), (4, 2), (6, 4)):
        png_16(tmp_path / f"{channels}.png", color, channels)
    tiff_16(tmp_path / "rgb.tif")
    (tmp_path / "rgb.ppm").write_bytes(b"P6 4 4 4095\n" + struct.pack(">H", 4095) * 48)
    Image.fromarray(np.full((16, 16), 4095, np.uint16)).save(tmp_path / "gray.jp2")
    Image.new("RGB", (16, 16), (9, 9, 9)).save(tmp_path / "rgb.jp2")
    assert decode(tmp_path / "rgb.jp2").size == (16, 16)
    content = (tmp_path / "rgb.jp2").read_bytes()
    place = content.index(b"\xff\x4f\xff\x51") + 42
    assert content[place] == 7  # bits of the first component, less one
    (tmp_path / "deep.jp2").write_bytes(content[:place] + b"\x0b" + content[place + 1 :])
    for name in ("3.png", "2.png", "4.png", "rgb.tif", "rgb.ppm", "gray.jp2", "deep.jp2"):
        with raises_error("KD-DATA-002", where=str(tmp_path / name)):
            decode(tmp_path / name)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
@pytest.mark.parametrize(("flags", "bits"), [(0x40, 10), (0x60, 12)])
def test_a_deep_avif_is_recognized_by_its_configuration(tmp_path: Path, flags: int, bits: int) -> None:
    """Pillow writes 8 bits, and reads more as 8: here the flags alone are those of a deep file."""
    path = tmp_path / "a.avif"
    Image.new("RGB", (16, 16), (9, 90, 200)).save(path)
    assert decode(path).size == (16, 16)
    content = bytearray(path.read_bytes())
    content[content.index(b"av1C") + 6] |= flags
    depths = content.index(b"pixi") + 9
    content[depths : depths + 3] = bytes([bits] * 3)
    path.write_bytes(content)
    assert Image.open(path).mode == "RGB"
    with raises_error("KD-DATA-002", where=str(path), mentions=(f"{bits} bits",)):
        decode(path)


@pytest.mark.parametrize("name", ["a.tif", "a.gif", "a.png", "a.webp"])
def test_a_frame_is_chosen(tmp_path: Path, name: str) -> None:
    path, frames = tmp_path / name, [Image.new("RGB", (8, 8), (value, value, value)) for value in (0, 100, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    with raises_error("KD-DATA-016", mentions=("3",)):
        decode(path)
    assert decode(path, ImageOptions(frame=0)).getpixel((0, 0)) == (0, 0, 0)
    assert decode(path, ImageOptions(frame=2)).getpixel((0, 0)) == (200, 200, 200)
    with raises_error("KD-DATA-017", mentions=("3",)):
        decode(path, ImageOptions(frame=3))
    assert decode(paint(tmp_path / "one.png", seed=1), ImageOptions(frame=3)).size == (16, 16)


def test_the_previews_of_a_camera_are_no_frames(tmp_path: Path) -> None:
    path, picture = tmp_path / "a.jpg", Image.new("RGB", (8, 8), (200, 200, 200))
    picture.save(path, format="MPO", save_all=True, append_images=[picture])
    with Image.open(path) as image:
        assert (image.format, getattr(image, "n_frames", 0)) == ("MPO", 2)
    assert decode(path).size == (8, 8)


@pytest.mark.parametrize("kind", ["png", "tif", "gif", "jpg", "webp", "jp2", "bmp", "ico"])
def test_the_limit_of_pixels_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """With a lower limit of Pillow than its own of 179 million; it compares some formats again while decoding."""
    assert 2 * (Image.MAX_IMAGE_PIXELS or 0) == PIXELS
    path = paint(tmp_path / f"large.{kind}", seed=1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with raises_error("KD-DATA-015", mentions=("max_pixels", "256")):
        decode(path)
    assert decode(path, ImageOptions(max_pixels=256)).size == (16, 16)
    assert Image.MAX_IMAGE_PIXELS == 100
    with raises_error("KD-DATA-015", mentions=("255",)):
        decode(path, ImageOptions(max_pixels=255))
    monkeypatch.undo()
    with raises_error("KD-DATA-015"):
        decode(path, ImageOptions(max_pixels=255))


def test_a_large_second_frame_is_allowed_by_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, frames = tmp_path / "a.tif", [Image.new("L", (8, 8)), Image.new("L", (16, 16), 99)]
    frames[0].save(path, save_all=True, append_images=frames[1:], compression="tiff_deflate")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with raises_error("KD-DATA-015"):
        decode(path, ImageOptions(frame=1))
    assert decode(path, ImageOptions(frame=1, max_pixels=256)).getpixel((0, 0)) == (99, 99, 99)


@pytest.mark.parametrize(
    ("size", "min_side", "expected"),
    [
        ((64, 96), 32, (32, 48)),
        ((64, 96), 33, (64, 96)),
        ((64, 96), 16, (16, 24)),
        ((65, 97), 16, (17, 25)),
        ((64, 96), 1, (8, 12)),
    ],
)
def test_jpegs_are_decoded_at_reduced_scale(
    tmp_path: Path, size: tuple[int, int], min_side: int, expected: tuple[int, int]
) -> None:
    """Both sides keep ``min_side`` pixels, by 1/2, 1/4 or 1/8. The pixels are near those of a resized image."""
    across, down = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    picture = Image.fromarray(np.stack([across, down, across], axis=-1).astype(np.uint8))
    picture.save(tmp_path / "a.jpg", quality=95)
    picture.save(tmp_path / "a.png")
    options = ImageOptions(jpeg_min_side=min_side)
    found = decode(tmp_path / "a.jpg", options)
    assert (found.mode, found.size) == ("RGB", expected)
    resized = np.asarray(picture.resize(expected, Image.Resampling.BOX), float)
    if size[0] % expected[0] == 0:  # else the last pixels of a row are of a padded block
        assert np.abs(np.asarray(found, float) - resized).mean() < 3
    assert decode(tmp_path / "a.png", options).size == size
    with raises_error("KD-DATA-015"):  # the limit is of the image as it is
        decode(tmp_path / "a.jpg", ImageOptions(jpeg_min_side=min_side, max_pixels=size[0] * size[1] - 1))


def test_thin_images_are_unreadable_within_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "thin.png"
    Image.new("L", (10, 2001)).save(path)
    assert decode(path).size == (10, 2001)
    with raises_error("KD-DATA-014", mentions=("2001",)):
        decode(path, ImageOptions(max_aspect=200))
    sample = Sample("s", tmp_path, "", "d", extra={"images": [path]}, image_options=ImageOptions(max_aspect=200))
    with raises_error("KD-DATA-001", where=str(path)):
        open_further_images(sample)


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "empty"), (b"\0" * 128 + b"DICM", "DICOM"), (b"version https://git-lfs.github.com/spec/v1\n", "LFS")],
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with raises_error("KD-DATA-003") as caught:
        decode(path)
    assert word in caught.value.why


@pytest.mark.parametrize(
    ("processors", "beside", "expected"),
    [(1, None, 4), (2, "1", 4), (12, "1", 12), (64, "8", 8), (64, None, 16), (8, "4", 4), (12, "0", 12)],
)
def test_processes_of_one_machine_share_its_processors(
    monkeypatch: pytest.MonkeyPatch, processors: int, beside: str | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(processors), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if beside is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", beside)
    assert decoding_threads() == expected


def test_no_program_is_run_for_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow gives EPS to Ghostscript, whatever the file's name."""
    program, marker = tmp_path / "bin/gs", tmp_path / "ran"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {marker}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with Image.open(path) as image:
        assert image.format == "EPS"
    with raises_error("KD-DATA-003", where=str(path)):
        decode(path)
    assert not marker.exists()
