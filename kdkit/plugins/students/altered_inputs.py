"""Random alterations of images and texts, far beyond augmentation: what is left of the finding does not matter.

On them a student's previous version is its own teacher, so they only have to reach much of the space of inputs.
"Knowledge distillation: a good teacher is patient and consistent" (arXiv 2106.05237) shows the same of mixed and
unrelated images. Every row is altered by numbers from its own seed, so a batch can be divided in any way.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor
from torch.nn import functional as F

_NUMBERS = 17
"""Random numbers per image."""
_SCALE = (0.4, 1.2)
"""Of the view; below 1 is a cut."""
_SHIFT = 0.4
"""Largest shift of the view's center, in half images."""
_GAIN, _OFFSET = 0.5, 0.7
"""Largest logarithm of a factor on the normalized pixels, and largest offset: one of all channels, and one of each."""
_INVERTED = 0.2
"""Share of inverted images."""
_REPLACED = 0.6
"""Largest share of replaced tokens in a text; uniform between none and this."""


def random_numbers(seeds: Tensor, length: int) -> Tensor:
    """(B, length) float32 in [0, 1), on the CPU; a row follows from its seed alone."""
    rows = [torch.rand(length, generator=torch.Generator().manual_seed(seed)) for seed in seeds.tolist()]
    return torch.stack(rows)


def alter_images(pixels: Tensor, seeds: Tensor) -> Tensor:
    """Turned, mirrored, cut and shifted views in other colors.

    Args:
        pixels: (B, 3, H, W), normalized to about unit variance.
        seeds: (B,) int64.

    Returns:
        (B, 3, H, W), of the same type and on the same device.
    """
    numbers = random_numbers(seeds, _NUMBERS).to(pixels.device, pixels.dtype)
    return _recolor(_view(pixels, numbers[:, :5]), numbers[:, 5:])


def _view(pixels: Tensor, numbers: Tensor) -> Tensor:
    angle = (2 * numbers[:, 0] - 1) * math.pi
    scale = _SCALE[0] + (_SCALE[1] - _SCALE[0]) * numbers[:, 1]
    mirror = torch.where(numbers[:, 2] < 0.5, -1.0, 1.0).to(pixels.dtype)
    shift = (2 * numbers[:, 3:5] - 1) * _SHIFT
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rows = torch.stack([cos * mirror, -sin, shift[:, 0], sin * mirror, cos, shift[:, 1]], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(rows, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


def _recolor(pixels: Tensor, numbers: Tensor) -> Tensor:
    """numbers: (B, 12): 4 gains and 4 offsets (one of all channels, one of each), inversion, order of channels."""
    order = numbers[:, 9:12].argsort(dim=1)
    pixels = pixels.gather(1, order[:, :, None, None].expand_as(pixels))
    centered = 2 * numbers[:, :8, None, None] - 1
    gain = (_GAIN * (centered[:, :1] + centered[:, 1:4])).exp()
    offset = _OFFSET * (centered[:, 4:5] + centered[:, 5:8])
    sign = torch.where(numbers[:, 8] < _INVERTED, -1.0, 1.0).to(pixels.dtype)
    return (pixels * gain + offset) * sign[:, None, None, None]


def alter_tokens(tokens: Tensor, seeds: Tensor, *, size: int, kept: Collection[int]) -> Tensor:
    """Texts with random tokens in the place of some.

    Args:
        tokens: (B, L) int64.
        seeds: (B,) int64.
        size: of the vocabulary.
        kept: ids of special tokens (start, end, padding): neither replaced nor drawn.
    """
    length = tokens.shape[1]
    numbers = random_numbers(seeds, 1 + 2 * length).to(tokens.device)
    special = torch.tensor(sorted(kept), device=tokens.device, dtype=tokens.dtype)
    drawn = (numbers[:, 1 + length :] * size).long().clamp(max=size - 1)
    replaced = numbers[:, 1 : 1 + length] < _REPLACED * numbers[:, :1]
    replaced &= ~torch.isin(tokens, special) & ~torch.isin(drawn, special)
    return torch.where(replaced, drawn, tokens)
