"""RoPE written down a second time, token by token, in float64; and what positions should be, from the papers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kdkit.core.contracts import RopeVariant

Grid = tuple[int, int, int]
IMAGE = "image"
Piece = int | Grid
"""A number of text tokens, or the grid of an image."""


def sequence(*pieces: Piece) -> tuple[Tensor, list[Grid]]:
    """Modality (S,) and grids of a sequence."""
    grids = [piece for piece in pieces if not isinstance(piece, int)]
    runs = [torch.zeros(p) if isinstance(p, int) else torch.ones(int(np.prod(p))) for p in pieces]
    return torch.cat([torch.zeros(0), *runs]).long(), grids


def scores(variant: RopeVariant, positions: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """(S, S) products of rotated queries and keys (S, 2F), one head; plane f is (x[f], x[F + f])."""
    planes = q.shape[1] // 2
    inverse = torch.tensor([10_000.0 ** (-i / planes) for i in range(planes)])
    frequencies = variant.frequencies(inverse).double().reshape(len(positions), -1, planes)[:, 0]
    out = torch.zeros(len(q), len(k), dtype=torch.float64)
    turned = [[turn(x[s].double(), positions[:, s].double(), frequencies) for s in range(len(x))] for x in (q, k)]
    for i, a in enumerate(turned[0]):
        for j, b in enumerate(turned[1]):
            out[i, j] = a @ b
    return out


def turn(x: Tensor, position: Tensor, frequencies: Tensor) -> Tensor:
    """One vector (2F,), turned as complex numbers."""
    planes = len(x) // 2
    angle = position @ frequencies
    turned = torch.complex(x[:planes], x[planes:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag])


def released_clinkd(pieces: Sequence[Piece]) -> Tensor:
    """Positions (3, S) of ClinKD's released ``get_rope_index``, from its description in words."""
    parts: list[Tensor] = []
    for number, piece in enumerate(pieces):
        last = -1 if not parts else int(parts[-1].max())
        after_image = number > 0 and not isinstance(pieces[number - 1], int)
        if isinstance(piece, int):
            parts.append((torch.arange(piece) + last + (2 if after_image else 1)).expand(3, -1))
        else:
            t, h, w = piece
            axes = torch.meshgrid(torch.arange(t), torch.arange(h), torch.arange(w), indexing="ij")
            parts.append(torch.stack([axis.flatten() for axis in axes]) + last + 2)
    return torch.cat(parts, dim=1)
