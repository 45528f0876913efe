"""MedMNIST's files."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdkit.core.contracts import Sample, Skipped
from kdkit.core.data.images import open_image
from tests.errors import raises_error
from tests.plugins.sources.files import read, read_all

RNG = np.random.default_rng(0)
SIZES = {"train": 6, "val": 3, "test": 2}


def arrays(labels: int = 2, width: int = 1, channels: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part, size in SIZES.items():
        shape = (size, 8, 8, channels) if channels else (size, 8, 8)
        found[f"{part}_images"] = RNG.integers(0, 256, shape, dtype=np.uint8)
        found[f"{part}_labels"] = RNG.integers(0, labels, (size, width), dtype=np.uint8)
    return found


def test_the_released_form(tmp_path: Path) -> None:
    given = arrays()
    np.savez_compressed(tmp_path / "pneumoniamnist_64.npz", **given)
    samples = read("medmnist", tmp_path / "pneumoniamnist_64.npz")
    assert [one.id for one in samples[:7]] == [f"pneumoniamnist_64/train/{row}" for row in range(6)] + [
        "pneumoniamnist_64/val/0"
    ]
    assert {one.domain for one in samples} == {"pneumoniamnist"}
    assert [one.split for one in samples] == ["train"] * 6 + ["calibration"] * 3 + ["test"] * 2
    names = [("normal", "pneumonia")[number] for part in SIZES for number in given[f"{part}_labels"].ravel()]
    assert [one.label for one in samples] == names
    assert samples[0].text == f"a pneumoniamnist image of {names[0]}"
    pixels = np.asarray(open_image(samples[8]))
    assert np.array_equal(pixels[..., 1], given["val_images"][2])


def test_a_folder_of_unpacked_arrays_gives_the_same(tmp_path: Path) -> None:
    given = arrays(labels=9, channels=3)
    np.savez(tmp_path / "pathmnist.npz", **given)
    (tmp_path / "pathmnist").mkdir()
    for name, array in given.items():
        np.save(tmp_path / "pathmnist" / f"{name}.npy", array)
    packed, unpacked = read("medmnist", tmp_path / "pathmnist.npz"), read("medmnist", tmp_path / "pathmnist")
    fields = ("id", "text", "label", "split", "domain")
    for one, other in zip(packed, unpacked, strict=True):
        assert [getattr(one, field) for field in fields] == [getattr(other, field) for field in fields]
        assert open_image(one).tobytes() == open_image(other).tobytes()


def test_several_labels_are_no_class(tmp_path: Path) -> None:
    given = arrays(width=14)
    given["train_labels"][0], given["train_labels"][1] = 0, [1, 0, 0, 1] + [0] * 10
    np.savez(tmp_path / "chestmnist.npz", **given, extra=np.arange(3))
    found = read_all("medmnist", tmp_path / "chestmnist.npz", domain="chest x-ray", caption="{domain}: {label}")
    samples = [one for one in found if isinstance(one, Sample)]
    assert [one.text for one in samples[:2]] == ["chest x-ray: no finding", "chest x-ray: atelectasis, infiltration"]
    assert {one.label for one in samples} == {None}
    assert [one.what for one in found if isinstance(one, Skipped)] == ["arrays"]


def test_labels_need_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays(labels=3))
    with raises_error("KD-SRC-086", where=str(path), mentions=("labels",)):
        read("medmnist", path)
    assert {one.label for one in read("medmnist", path, labels=["a", "b", "c"])} == {"a", "b", "c"}


WRONG: dict[str, dict[str, Any]] = {
    "no labels": {"train_labels": None},
    "fewer labels": {"train_labels": np.zeros((2, 1), np.uint8)},
    "floats": {"train_labels": np.zeros((6, 1))},
    "negative": {"train_labels": np.full((6, 1), -1)},
    "no split": {"other_images": np.zeros((1, 8, 8), np.uint8), "other_labels": np.zeros((1, 1), np.uint8)},
    "no images": {f"{part}_images": None for part in SIZES},
    "objects": {"train_labels": np.array([object()] * 6, dtype=object)},
}


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
def test_other_files_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "pneumoniamnist.npz"
    np.savez(path, **{name: array for name, array in {**arrays(), **changes}.items() if array is not None})
    with raises_error("KD-SRC-086", where=str(path)):
        read("medmnist", path)


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "pneumoniamnist.npz"
    with raises_error("KD-SRC-085", where=str(path)):
        read("medmnist", path)
    np.savez(path, **arrays())
    path.write_bytes(path.read_bytes()[:-50])
    with raises_error("KD-SRC-086", where=str(path)):
        read("medmnist", path)
    np.savez(path, train_images=np.zeros((2, 8, 8), np.uint16), train_labels=np.zeros((2, 1), np.uint8))
    with raises_error("KD-SRC-081", where=f"{path}[train_images]"):
        read("medmnist", path)


def test_labels_are_compared_with_the_images_before_they_are_read(tmp_path: Path) -> None:
    """Ten kilobytes of a file that unpack to eight million labels."""
    given = {**arrays(), "val_labels": np.zeros((8_000_000, 1), dtype=np.uint8)}
    np.savez_compressed(tmp_path / "pneumoniamnist.npz", **given)
    tracemalloc.start()
    with raises_error("KD-SRC-086"):
        read("medmnist", tmp_path / "pneumoniamnist.npz")
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_arrays_that_no_image_uses_are_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "pneumoniamnist.npz", **arrays(), test2_labels=np.zeros((2, 1), dtype=np.uint8))
    found = read_all("medmnist", tmp_path / "pneumoniamnist.npz")
    assert [(one.what, one.level) for one in found if isinstance(one, Skipped)] == [
        ("arrays of labels without images", "warning")
    ]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "pneumoniamnist.npz", **arrays())
    with zipfile.ZipFile(tmp_path / "pneumoniamnist.npz", "a") as archive:
        archive.writestr("train_images.npy", archive.read("val_images.npy"))
    with raises_error("KD-SRC-086"):
        read("medmnist", tmp_path / "pneumoniamnist.npz")
