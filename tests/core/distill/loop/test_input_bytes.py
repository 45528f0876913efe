"""Prepared inputs as bytes and back: equal to the last bit, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from kdkit.core.contracts import Sample, Student
from kdkit.core.distill.loop.input_bytes import InputBytes

SAMPLE = Sample("s", Path("s.png"), "a scan", "ct")
Transform = Callable[[Image.Image], torch.Tensor]


class Prepares:
    def __init__(self, transform: Any) -> None:
        self.transform: Transform = transform

    def prepare(self, image: Image.Image, sample: Sample) -> Mapping[str, torch.Tensor]:
        return {"pixels": self.transform(image), "tokens": torch.full((5,), len(sample.text))}


def coder(transform: Any) -> InputBytes:
    return InputBytes.of(cast(Student, Prepares(transform)), SAMPLE)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_nothing_is_lost(mode: Any, interpolation: Any) -> None:
    cfg = PreprocessCfg(size=24, resize_mode=mode, interpolation=interpolation)  # CLIP's mean and std
    transform = image_transform_v2(cfg, is_train=False)
    noise = np.random.default_rng(0).integers(0, 256, (50, 31, 3), dtype=np.uint8)
    row = {"pixels": transform(Image.fromarray(noise)), "tokens": torch.arange(5)}
    coding = coder(transform)
    coded = coding.encode(row)
    assert coded is not None
    assert coded["pixels"].dtype == torch.uint8
    back = coding.decode({name: torch.stack([x, x]) for name, x in coded.items()})
    assert all(torch.equal(back[name][place], row[name]) for name in row for place in (0, 1))


def test_numbers_that_are_no_bytes_are_kept() -> None:
    transform = image_transform_v2(PreprocessCfg(size=8), is_train=False)
    pixels = transform(Image.new("RGB", (8, 8), (9, 99, 200)))
    coding = coder(transform)
    assert coding.encode({"pixels": pixels}) is not None
    pixels[0, 3, 3] += 1e-4
    assert coding.encode({"pixels": pixels}) is None
    assert torch.equal(coding.decode({"pixels": pixels[None]})["pixels"][0], pixels)


@pytest.mark.parametrize(
    "transform",
    [
        lambda image: torch.from_numpy(np.asarray(image.resize((4, 4)), np.float32).T.copy()) % 7,  # not ascending
        lambda image: torch.arange(48.0).view(3, 4, 4) + image.getpixel((0, 0))[0],  # differs within one gray
        lambda image: torch.full((3, 16), image.getpixel((0, 0))[0] / 255),  # patches, no image
    ],
)
def test_other_kinds_of_inputs_have_no_bytes(transform: Any) -> None:
    assert coder(transform).tables == {}
