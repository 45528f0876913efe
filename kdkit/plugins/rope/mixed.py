"""RoPE-Mixed for the vision tower: rotary planes that rotate along learned directions of the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.plugins.rope.designs import Grid, lattice, spans


class RopeMixed:
    """Heo et al., "Rotary Position Embedding for Vision Transformer" (arXiv 2403.13298), section 3.2.

    Plane f of a head rotates by ``row * frequencies[0, f] + column * frequencies[1, f]``; both are learned, for each
    layer and head. Magnitudes start at ``theta ** (-4 i / d)`` for i in 0 .. d/4 - 1, each twice, at right angles.

    Args:
        theta: base of the magnitudes. 10 000 is that of Qwen's towers; the paper has 10.
        rotate: whether each head starts with a random orientation (from torch's global generator), as in the
            paper, or along rows and columns, which with ``theta`` 10 000 is what a pretrained Qwen tower does.
    """

    tower: Literal["language", "vision"] = "vision"
    trainable = True

    def __init__(self, *, theta: float = 10_000.0, rotate: bool = False) -> None:
        if not theta > 0:
            raise KdkitError("KD-ROPE-003", f"theta is {theta}", fix="give a number above 0, such as 10000")
        self.theta, self.rotate = float(theta), rotate

    def positions(self, modality: Tensor, grids: Sequence[Grid]) -> Tensor:
        """(2, S) int64: row and column from 0, in every image and frame; other tokens are at 0."""
        out = torch.zeros(2, len(modality), dtype=torch.int64)
        for span in spans(modality, grids):
            if span.grid is not None:
                out[:, span.start : span.stop] = lattice(span.grid)[1:]
        return out

    def frequencies(self, inverse: Tensor, heads: int = 1) -> Tensor:
        """(2, heads, F) initial frequencies; ``inverse`` (F,) gives only F.

        Raises:
            KdkitError: an odd F.
        """
        planes = len(inverse)
        if planes % 2:
            raise KdkitError(
                "KD-ROPE-004",
                f"rope-mixed cannot share {planes} frequencies between two directions",
                why="the width of an attention head must be a multiple of 4",
                fix="choose another variant of the vision tower, or another backbone",
            )
        magnitude = self.theta ** (-torch.arange(planes // 2) * 2 / planes)
        angle = torch.rand(heads, 1) * 2 * math.pi if self.rotate else torch.zeros(heads, 1)
        along = torch.cat([magnitude * angle.cos(), magnitude * (angle + math.pi / 2).cos()], dim=1)
        across = torch.cat([magnitude * angle.sin(), magnitude * (angle + math.pi / 2).sin()], dim=1)
        if not self.rotate:  # exactly: cos(pi / 2) is not 0 in floating point
            along[:, planes // 2 :], across[:, planes // 2 :] = 0.0, magnitude
        return torch.stack([along, across])
