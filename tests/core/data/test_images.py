"""Decoding of images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdkit.core.contracts import Sample
from kdkit.core.data.images import decoding_threads, open_image
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
