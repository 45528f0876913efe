"""Image tensors of a processor: as equal shapes for every sample, and as one batch for the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.plugins.students.clinkd.families.spec import FamilySpec

PIXELS = "pixel_values"
_IMAGE, _SHAPE = "image.", "shape."
"""Prefixes of names in a sample's inputs: an image tensor, and the sizes of its first axes without padding."""


def most_tiles(processor: Any, kind: str) -> int:
    """The most tiles that an image processor of transformers makes of one image.

    Args:
        kind: ``one``; ``crops``: pan and scan of Gemma 3; ``patches``: InternVL's, with the thumbnail, also where
            its file says ``crop_to_patches: false``, which transformers' processor overrides; ``pinpoints``: the
            largest grid of LLaVA-NeXT, with the whole image; ``splits``: Idefics3's rows x columns, with the whole
            image.
    """
    if kind == "crops":
        return 1 + int(processor.pan_and_scan_max_num_crops if processor.do_pan_and_scan else 0)
    if kind == "patches":
        return int(processor.max_patches) + 1
    if kind == "pinpoints":
        side = _side(processor.crop_size) or _side(processor.size)
        return 1 + max(math.ceil(int(h) / side) * math.ceil(int(w) / side) for h, w in processor.image_grid_pinpoints)
    if kind == "splits":
        rows = math.ceil(processor.size["longest_edge"] / processor.max_image_size["longest_edge"])
        return int(rows * rows + 1) if processor.do_image_splitting else 1
    return 1


def _side(size: Any) -> int:
    named = {} if size is None else {name: size[name] for name in ("height", "shortest_edge") if name in size}
    return next((int(value) for value in named.values() if value), 0)


@dataclass(frozen=True)
class Normalization:
    """Pixels from 0 to 255 to the values that a model takes, to the digit as transformers computes them.

    Attributes:
        mean, std: of each channel.
        factor: of both, the inverse of the scale of pixels.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    factor: float

    @classmethod
    def of(cls, processor: Any) -> Normalization:
        """That of an image processor of transformers."""
        factor = 1 / processor.rescale_factor if processor.do_rescale else 1.0
        if not processor.do_normalize:
            return cls((0.0,) * 3, (1.0,) * 3, factor)
        return cls(tuple(processor.image_mean), tuple(processor.image_std), factor)

    def __call__(self, pixels: Tensor) -> Tensor:
        """(..., 3, H, W) uint8 -> float32."""
        mean, std = (torch.tensor(x, device=pixels.device) * self.factor for x in (self.mean, self.std))
        return (pixels.float() - mean[:, None, None]) / std[:, None, None]


@dataclass(frozen=True)
class Layout:
    """The shapes of a family's image tensors in one model.

    Attributes:
        spec: of the family.
        images: the most images of a sample; ``tiles``: the most tiles of an image; ``tokens``: of a sample.
    """

    spec: FamilySpec
    images: int
    tiles: int
    tokens: int
    normalization: Normalization

    def _most(self, axis: str) -> int:
        return {
            "sample": 1,
            "images": self.images,
            "tiles": self.tiles,
            "all tiles": self.images * self.tiles,
            "tokens": self.tokens,
        }[axis]

    def pack(self, tensors: Mapping[str, Tensor], length: int) -> dict[str, Tensor]:
        """A sample's tensors in shapes that all samples have, with the sizes before padding.

        Args:
            length: tokens of the sample with its answer: what holds for the last token of the prompt holds for these.

        Raises:
            KdkitError: more tiles than :func:`most_tiles` says.
        """
        made = {}
        for name, axes in self.spec.tensors.items():
            x = tensors[name]
            if "tokens" in axes:
                x = _continued(x, axes.index("tokens"), length)
            most = [self._most(axis) for axis in axes]
            if any(size > limit for size, limit in zip(x.shape, most, strict=False)):
                raise KdkitError(
                    "KD-STUD-480",
                    f"{name} of the processor is larger than kdkit expects",
                    where=self.spec.name,
                    why=f"{', '.join(axes)}: {list(x.shape[: len(axes)])}, at most {most}",
                    fix="correct 'tiles' of the FamilySpec, or the settings of the image processor",
                )
            made[f"{_SHAPE}{name}"] = torch.tensor(x.shape[: len(axes)])
            made[f"{_IMAGE}{name}"] = _padded(x, most)
        return made

    def unpack(self, inputs: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Each sample's tensors of a batch of :meth:`pack`, without padding."""
        rows: list[dict[str, Tensor]] = []
        for number in range(len(next(iter(inputs.values())))):
            row = {}
            for name in self.spec.tensors:
                shape = inputs[f"{_SHAPE}{name}"][number].tolist()
                row[name] = inputs[f"{_IMAGE}{name}"][number][tuple(slice(size) for size in shape)]
            rows.append(row)
        return rows

    def batch(
        self, rows: Sequence[Mapping[str, Tensor]], length: int, *, prompts: int | None = None
    ) -> dict[str, Tensor]:
        """The model's image arguments for samples, as its processor makes them for a batch.

        Args:
            length: tokens of the batch: samples are padded to it on the right.
            prompts: or samples are prompts that are padded to this on the left; the rest is their answers'.
        """
        made = {}
        for name, axes in self.spec.tensors.items():
            found = [row[name] for row in rows]
            sizes = [max(x.shape[n] for x in found) for n in range(len(axes))]
            at = axes.index("tokens") if "tokens" in axes else None
            if at is not None:
                sizes[at] = length if prompts is None else prompts
            before = None if prompts is None else at
            made[name] = torch.cat([_padded(x, [x.shape[0], *sizes[1:]], before) for x in found])
            if before is not None:
                made[name] = _continued(made[name], before, length)
            if made[name].dtype == torch.bool:
                made[name] = made[name].long()
        made[PIXELS] = self._normalized(made)
        return made

    def _normalized(self, tensors: Mapping[str, Tensor]) -> Tensor:
        pixels = self.normalization(tensors[PIXELS])
        if not self.spec.real:
            return pixels
        mask, before = tensors[self.spec.real], pixels.ndim - 3
        real = mask.flatten(before).any(-1) if mask.ndim > before else mask.bool()
        return torch.where(real[..., None, None, None], pixels, 0.0)


def as_bytes(pixels: Tensor, where: str) -> Tensor:
    """Pixels of an image processor that neither rescaled nor normalized, as uint8.

    Raises:
        KdkitError: they are no whole numbers from 0 to 255.
    """
    whole = pixels.round().to(torch.uint8)
    if not torch.equal(whole.to(pixels.dtype), pixels):
        raise KdkitError(
            "KD-STUD-421",
            "this image processor does not give pixels from 0 to 255",
            where=where,
            why="kdkit keeps images as bytes and normalizes them on the device",
            fix="use the image processor of the model's own repository",
        )
    return whole


def _padded(x: Tensor, sizes: Sequence[int], before: int | None = None) -> Tensor:
    """Zeros behind the first axes, or before the one numbered ``before``."""
    places: list[int] = []
    for axis in reversed(range(len(sizes))):
        room = sizes[axis] - x.shape[axis]
        places += [room, 0] if axis == before else [0, room]
    return torch.nn.functional.pad(x, [0] * 2 * (x.ndim - len(sizes)) + places)


def _continued(x: Tensor, axis: int, length: int) -> Tensor:
    last = x.narrow(axis, x.shape[axis] - 1, 1)
    shape = list(x.shape)
    shape[axis] = length - x.shape[axis]
    return torch.cat([x, last.expand(shape)], dim=axis)
