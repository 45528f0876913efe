"""Rows of arrays in .npz and .npy files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import ImageLocation
from kdkit.core.data.digests import file_digest
from kdkit.core.data.images import UnreadableImage, decode
from kdkit.plugins.readers import array as array_module
from kdkit.plugins.readers.array import ArrayReader
from tests.errors import raises_error

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (5, 7, 9), dtype=np.uint8)
COLOR = RNG.integers(0, 256, (5, 7, 9, 3), dtype=np.uint8)


def expected(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)


@pytest.mark.parametrize("images", [GRAY, COLOR, GRAY[..., None]], ids=["gray", "color", "channel"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, None], ids=["stored", "compressed", "npy"])
def test_rows_become_pictures(tmp_path: Path, images: NDArray[np.uint8], save: Any) -> None:
    path, name = tmp_path / ("a.npz" if save else "a.npy"), "train_images" if save else ""
    if save:
        save(path, other=np.arange(4), train_images=images)
    else:
        np.save(path, images)
    for row in (4, 0, 2):
        picture = decode(ImageLocation("array", path, (name, row)))
        assert np.array_equal(np.asarray(picture), expected(images[row].reshape(7, 9, -1).squeeze()))


def test_arrays_of_another_form_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npz"
    wrong: dict[str, Any] = {
        "deep": GRAY.astype(np.uint16),
        "flat": GRAY.ravel(),
        "five": np.zeros((2, 3, 3, 5), np.uint8),
    }
    np.savez(path, good=GRAY, fortran=np.asfortranarray(GRAY), **wrong)
    for name in wrong:
        with raises_error("KD-SRC-081", where=f"{path}[{name}]"):
            ArrayReader().content(ImageLocation("array", path, (name, 0)))
    places: list[tuple[str | int | float | None, ...]] = [("gone", 0), ("fortran", 0)]
    for at in places:
        with raises_error("KD-SRC-080", where=str(path)):
            ArrayReader().content(ImageLocation("array", path, at))
    places = [("good", 5), ("good", -1), (0, 0), ()]
    for at in places:
        with raises_error("KD-SRC-083"):
            ArrayReader().content(ImageLocation("array", path, at))
    np.savez_compressed(path, good=GRAY)
    monkeypatch.setattr(array_module, "MAX_BYTES", 10)
    with raises_error("KD-SRC-082"):
        ArrayReader().content(ImageLocation("array", path, ("good", 0)))
    path.write_bytes(path.read_bytes()[:100])
    with raises_error("KD-SRC-080"):
        ArrayReader().content(ImageLocation("array", path, ("good", 0)))


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.array([object()], dtype=object))
    with raises_error("KD-SRC-080"):
        ArrayReader().content(ImageLocation("array", tmp_path / "a.npz", ("images", 0)))


def test_a_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", GRAY)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-5])
    with raises_error("KD-SRC-080"):
        ArrayReader().content(ImageLocation("array", tmp_path / "a.npy", ("", 3)))


def test_a_small_file_that_declares_a_huge_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, GRAY)
    small, huge = b"(5, 7, 9), }" + b" " * 12, b"(2, 1048576, 1048576), }"
    assert small in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(small, huge))
    with raises_error("KD-SRC-080"):
        ArrayReader().content(ImageLocation("array", path, ("", 0)))


@pytest.mark.parametrize("place", [0, 100, 130, 400, -60])
def test_a_damaged_archive_is_an_unreadable_image(tmp_path: Path, place: int) -> None:
    path, location = tmp_path / "a.npz", ImageLocation("array", tmp_path / "a.npz", ("good", 1))
    np.savez_compressed(path, good=np.random.default_rng(0).integers(0, 255, (5, 30, 30), dtype=np.uint8))
    content = bytearray(path.read_bytes())
    end = place + 8 if place >= 0 else len(content)
    content[place:end] = b"\xff" * len(content[place:end])
    path.write_bytes(content)
    with pytest.raises(KdkitError):
        ArrayReader().content(location)
    with pytest.raises(UnreadableImage):
        decode(location)
    assert isinstance(file_digest(location), str)


def test_an_encrypted_archive_is_an_unreadable_image(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, good=GRAY)
    content = bytearray(path.read_bytes())
    for header, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(header) + place] |= 1
    path.write_bytes(content)
    with raises_error("KD-SRC-080"):
        ArrayReader().content(ImageLocation("array", path, ("good", 0)))
