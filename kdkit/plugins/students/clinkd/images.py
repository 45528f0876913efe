"""Images as Qwen2-VL's processor prepares them, as bytes: normalization is left to the device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Sample
from kdkit.core.data.images import open_further_images
from kdkit.plugins.students import MAX_ASPECT

CONFIG = "preprocessor_config.json"


@dataclass(frozen=True)
class ImageSettings:
    """How images become patches; names and meanings are those of ``preprocessor_config.json``."""

    min_pixels: int = 56 * 56
    max_pixels: int = 448 * 448
    patch_size: int = 14
    merge_size: int = 2
    temporal_patch_size: int = 2
    image_mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **others: int | None) -> ImageSettings:
        """Those of a ``preprocessor_config.json``; ``others`` that are not None take precedence."""
        known = {name: config[name] for name in cls.__dataclass_fields__ if config.get(name) is not None}
        if "size" in config and "min_pixels" not in known:  # as transformers 5 writes it
            known["min_pixels"] = config["size"].get("shortest_edge", cls.min_pixels)
        known["max_pixels"] = cls.max_pixels  # the released models' own is 12.8 million: too many for equal shapes
        chosen = {name: value for name, value in others.items() if value is not None}
        known |= {name: tuple(value) for name, value in known.items() if name.startswith("image_")}
        settings = cls(**{**known, **chosen})
        if settings.max_pixels < settings.unit**2:
            raise KdkitError(
                "KD-STUD-020",
                f"max_pixels is {settings.max_pixels}, less than one token",
                fix=f"at least {settings.unit**2}",
            )
        return replace(settings, min_pixels=min(settings.min_pixels, settings.max_pixels))

    @property
    def unit(self) -> int:
        """Pixels along the side of one token."""
        return self.patch_size * self.merge_size

    @property
    def most_patches(self) -> int:
        """Patches of the largest image."""
        return max(self.max_pixels // self.patch_size**2, self.merge_size**2)

    def config(self) -> dict[str, Any]:
        """A ``preprocessor_config.json`` that stock processors of transformers 4 and 5 read."""
        return {
            **asdict(self),
            "image_processor_type": "Qwen2VLImageProcessor",
            "size": {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels},
            "do_resize": True,
            "do_rescale": True,
            "do_normalize": True,
            "do_convert_rgb": True,
            "resample": int(Image.Resampling.BICUBIC),
            "rescale_factor": 1 / 255,
        }

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """:func:`smart_resize`, but never more than ``max_pixels``, which our fixed shapes need.

        Qwen goes beyond where it rounds up to ``min_pixels`` that are nearly as many, and where a side is one unit.
        """
        unit = self.unit
        w, h = smart_resize(width, height, unit=unit, least=self.min_pixels, most=self.max_pixels)
        if w * h > self.max_pixels:
            w, h = _shrunk(width, height, unit, self.max_pixels)
        longest = self.max_pixels // unit // unit * unit  # beside a side of one unit
        return min(w, longest), min(h, longest)

    def patches(self, image: Image.Image) -> tuple[Tensor, tuple[int, int, int]]:
        """(N, 3 * P * P) uint8 in Qwen's order (blocks of merged patches), and the grid (1, rows, columns)."""
        size = self.resized(*image.size)
        pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
        p, m = self.patch_size, self.merge_size
        rows, columns = size[1] // p, size[0] // p
        blocks = torch.from_numpy(pixels.copy()).reshape(rows // m, m, p, columns // m, m, p, 3)
        return blocks.permute(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns, 3 * p * p), (1, rows, columns)

    def normalized(self, patches: Tensor) -> Tensor:
        """(N, 3 * P * P) uint8 -> (N, 3 * T * P * P) float32: each image twice, as a video that stands still."""
        x = patches.reshape(len(patches), 3, 1, -1).to(torch.float32, copy=True)
        mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (self.image_mean, self.image_std))
        x = x.div_(255).sub_(mean).div_(std)
        return x.expand(-1, -1, self.temporal_patch_size, -1).reshape(len(patches), -1)


def squared(image: Image.Image) -> Image.Image:
    """A square of about as many pixels: ClinKD resamples images to w = h (arXiv 2502.05928, section 4.3) and states no
    side; here it is the rounded root of the number of pixels.
    """
    side = max(1, round(math.sqrt(image.width * image.height)))
    return image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BICUBIC)


def pictures_of(image: Image.Image, sample: Sample, *, square: bool) -> list[Image.Image]:
    """All images of a sample, the first one given, as the reader takes them."""
    found = [image, *open_further_images(sample)]
    return [squared(each) for each in found] if square else found


def smart_resize(width: int, height: int, *, unit: int, least: int, most: int) -> tuple[int, int]:
    """(width, height) as Qwen's processor resizes an image: near the original, in multiples of ``unit``, and between
    ``least`` and ``most`` pixels where that can be.

    Raises:
        KdkitError: one side is more than 200 times the other.
    """
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise KdkitError(
            "KD-STUD-021",
            f"an image of {width} x {height} pixels is too thin",
            why=f"Qwen takes sides up to 1 : {MAX_ASPECT}",
            fix="crop the image, or leave it out of the data",
        )
    w, h = (round(side / unit) * unit for side in (width, height))
    if w * h > most:
        return _shrunk(width, height, unit, most)
    if w * h < least:
        scale = math.sqrt(least / (width * height))
        w, h = (math.ceil(side * scale / unit) * unit for side in (width, height))
    return w, h


def _shrunk(width: int, height: int, unit: int, most: int) -> tuple[int, int]:
    scale = math.sqrt(width * height / most)
    w, h = (max(unit, math.floor(side / scale / unit) * unit) for side in (width, height))
    return w, h
