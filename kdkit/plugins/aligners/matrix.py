"""Aligners that are one matrix for all signals, found in closed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.core.base.errors import KdkitError


@dataclass(frozen=True)
class Solution:
    """Float64: ``encoder`` (in_dim, out_dim), ``decoder`` (out_dim, in_dim), ``mean`` (in_dim,)."""

    encoder: Tensor
    decoder: Tensor
    mean: Tensor


Solver = Callable[[Tensor, "Tensor | None"], Solution]
"""Unit rows (N, in_dim) of all signals, and their anchor (N, out_dim) if there is one -> the solution."""


class MatrixAligner(nn.Module):
    """``z = (x / |x| - mean) @ encoder``, the same for every signal.

    One matrix for image and text is the point: whatever it does to lengths and angles it does to both, so an
    orthogonal one leaves every image-text cosine of the teacher as it was.

    Args:
        in_dim: the teacher's width.
        out_dim: the student's.
        solve: finds the matrix.
    """

    encoder: Tensor
    decoder: Tensor
    mean: Tensor

    def __init__(self, in_dim: int, out_dim: int, solve: Solver) -> None:
        super().__init__()
        self._solve = solve
        self.register_buffer("encoder", torch.eye(in_dim, out_dim))
        self.register_buffer("decoder", torch.eye(out_dim, in_dim))
        self.register_buffer("mean", torch.zeros(in_dim))

    def fit(
        self,
        features: Mapping[str, Tensor],
        anchor: Mapping[str, Tensor] | None = None,
        *,
        seed: int = 0,  # noqa: ARG002 (contract)
    ) -> None:
        """Fit on the rows of all signals together. Closed form: ``seed`` changes nothing."""
        x = torch.cat([unit(features[name]) for name in sorted(features)])
        a = None if anchor is None else torch.cat([unit(anchor[name]) for name in sorted(features)])
        solution = self._solve(x, a)
        for name in ("encoder", "decoder", "mean"):
            self.get_buffer(name).copy_(getattr(solution, name))

    def encode(self, name: str, x: Tensor) -> Tensor:  # noqa: ARG002 (the same for every signal)
        """(B, in_dim) of any length -> (B, out_dim)."""
        return (F.normalize(x, dim=-1) - self.mean) @ self.encoder

    def decode(self, name: str, z: Tensor) -> Tensor:  # noqa: ARG002
        """(B, out_dim) -> (B, in_dim), about of length 1."""
        return z @ self.decoder + self.mean


def unit(x: Tensor) -> Tensor:
    """Rows of length 1, in float64."""
    return F.normalize(x.double(), dim=-1)


def required(anchor: Tensor | None, aligner: str) -> Tensor:
    """The anchor, or an error that says what one is."""
    if anchor is None:
        raise KdkitError(
            "KD-ALIGN-001",
            f"aligner '{aligner}' needs an anchor: features that all teachers are brought to",
            fix="give 'anchor', or use 'pca' or 'autoencoder', which need none",
        )
    return anchor
