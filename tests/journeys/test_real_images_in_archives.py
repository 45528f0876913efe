"""Real images as files, in tar shards, Parquet, npz and DICOM give the same pixels, and so the same features."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kdkit.core.contracts import ImageRef
from kdkit.core.data.digests import file_digest
from kdkit.core.data.images import decode
from tests.plugins.sources.archives import write_parquet, write_tar
from tests.plugins.sources.files import read

MEDMINI = Path(__file__).parents[2].parent / "shared" / "data" / "medmini" / "images"
EVERY = 80
"""Every 80th image; all of them were compared once, with 1 here: docs/explanation/benchmarks.md."""
PLAIN = {"domain": "d", "split": "train"}


def as_tar(folder: Path, files: Sequence[Path]) -> list[ImageRef]:
    for start in range(0, len(files), 500):
        members: dict[str, bytes] = {}
        for number, file in enumerate(files[start : start + 500], start):
            members |= {f"{number:05d}.jpg": file.read_bytes(), f"{number:05d}.txt": b"a scan"}
        write_tar(folder / f"{start:05d}.tar", members)
    return [sample.image for sample in read("webdataset", folder, constants=PLAIN)]


def as_parquet(folder: Path, files: Sequence[Path]) -> list[ImageRef]:
    columns: dict[str, Sequence[Any]] = {
        "text": ["a scan"] * len(files),
        "image": [file.read_bytes() for file in files],
    }
    path = write_parquet(folder / "rows.parquet", columns, row_group=100)
    return [sample.image for sample in read("parquet", path, constants=PLAIN)]


def as_npz(folder: Path, files: Sequence[Path]) -> list[ImageRef]:
    """A file for each size of images."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, file in enumerate(files):
        with Image.open(file) as image:
            groups[image.size].append(number)
    found: dict[int, ImageRef] = {}
    folder.mkdir()
    for size, numbers in groups.items():
        path = folder / f"{size[0]}x{size[1]}.npz"
        pixels = np.stack([np.asarray(decode(files[number])) for number in numbers])
        np.savez(path, train_images=pixels, train_labels=np.zeros((len(numbers), 1), np.int64))
        samples = read("medmnist", path, labels=["a"])
        found |= {number: sample.image for number, sample in zip(numbers, samples, strict=True)}
    return [found[number] for number in range(len(files))]


def as_dicom(folder: Path, files: Sequence[Path]) -> list[ImageRef]:
    from tests.plugins.sources.dicom_files import RGB, write_dicom

    for number, file in enumerate(files):
        write_dicom(folder / f"{number:05d}.dcm", np.asarray(decode(file)), **RGB)
    samples = read("dicom", folder, split="train")
    return [sample.image for sample in sorted(samples, key=lambda sample: str(sample.image))]


@pytest.mark.skipif(not MEDMINI.is_dir(), reason="the data set is not here")
@pytest.mark.parametrize("write", [as_tar, as_parquet, as_npz, as_dicom])
def test_every_form_gives_the_same_pixels(tmp_path: Path, write: Any) -> None:
    files = sorted(MEDMINI.rglob("*.jpg"))[::EVERY]
    images = write(tmp_path / "form", files)
    assert len(images) == len(files)
    for file, image in zip(files, images, strict=True):
        here, there = decode(file), decode(image)
        assert (there.size, there.tobytes()) == (here.size, here.tobytes()), file.name
        if write in (as_tar, as_parquet):
            assert file_digest(image) == file_digest(file)
