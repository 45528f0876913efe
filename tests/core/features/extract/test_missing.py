"""What columns lack: unreadable images are tried again, damaged files and blocks are computed again."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kdkit.core.contracts import Sample
from kdkit.core.data.images import open_further_images
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.extraction import extract
from kdkit.core.features.extract.missing import find_missing
from tests.core.features.extract.test_extraction import TopAnswers, open_toy
from tests.core.features.small import index_of, open_as, picture_samples


def test_an_error_of_the_moment_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = picture_samples(tmp_path / "images", 12)
    store, teacher = FeatureStore(tmp_path), open_toy("one", 1)
    index = index_of(samples, tmp_path, skip_unreadable=True)

    really = Image.open

    def fails(path: Path, **options: Any) -> Image.Image:
        if path.name in ("003.png", "007.png"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return really(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", fails)
        (report,) = extract(store, [teacher], index, block_rows=4)
        assert report.unreadable == 2
    missing = find_missing(store, {"one": teacher.fingerprint}, index)
    assert missing.counts == {"one": 2}
    (report,) = extract(store, [teacher], index, block_rows=4, again=missing.again)
    assert (report.new, report.unreadable) == (2, 0)
    assert find_missing(store, {"one": teacher.fingerprint}, index).counts == {}
    assert len(store.column("one").shards) == 2


def test_damage_is_computed_again(tmp_path: Path) -> None:
    samples = picture_samples(tmp_path / "images", 12)
    store, teacher, index = FeatureStore(tmp_path), open_toy("one", 1), index_of(samples, tmp_path)
    extract(store, [teacher], index_of(samples[:8], tmp_path), block_rows=4, prompts=["a"])
    extract(store, [teacher], index, block_rows=4)
    folder_of_column = store.column("one").folder.relative_to(tmp_path)
    files = [path.name for path in (tmp_path / folder_of_column).iterdir()]
    assert len(files) == 4
    for number, name in enumerate(3 * sorted(files)):
        copy = FeatureStore(tmp_path / f"copy-{number}")
        shutil.copytree(tmp_path / "one", copy.root / "one")
        path = copy.root / folder_of_column / name
        content = path.read_bytes()
        path.unlink()
        path.write_bytes([b"", content[: len(content) // 2], content[:-1] + bytes([content[-1] ^ 1])][number // 4])
        missing = find_missing(copy, {"one": teacher.fingerprint}, index, ["a"])
        assert missing.counts["one"] > 0, path
        extract(copy, [teacher], index, block_rows=4, prompts=["a"], again=missing.again)
        assert find_missing(copy, {"one": teacher.fingerprint}, index, ["a"]).counts == {}
        assert copy.column("one").verify() == []


def test_a_broken_further_image_adds_no_shard_at_every_run(tmp_path: Path) -> None:
    class Several(TopAnswers):
        def prepare(self, image: Image.Image, sample: Sample) -> tuple[int, int]:
            open_further_images(sample)
            return super().prepare(image, sample)

    samples = picture_samples(tmp_path / "images", 2)
    broken = tmp_path / "images" / "broken.png"
    broken.write_bytes(b"no image")
    samples[1] = replace(samples[1], extra={"images": [str(broken)]})
    index = index_of(samples, tmp_path, skip_unreadable=True)
    teacher, store = open_as("vlm", Several()), FeatureStore(tmp_path)
    extract(store, [teacher], index)
    assert find_missing(store, {"vlm": teacher.fingerprint}, index).counts == {}
    (report,) = extract(store, [teacher], index)
    assert (report.unreadable, len(store.column("vlm").shards)) == (1, 1)
