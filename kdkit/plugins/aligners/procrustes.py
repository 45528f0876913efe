"""Orthogonal Procrustes (Schönemann 1966): the rotation that brings a teacher nearest to the anchor."""

from __future__ import annotations

import torch
from torch import Tensor

from kdkit.plugins.aligners.matrix import MatrixAligner, Solution, required


def procrustes(in_dim: int, out_dim: int) -> MatrixAligner:
    """``argmin |X W - A|`` over W with orthonormal columns or rows: ``W = U V'`` from ``X'A = U S V'``.

    in_dim <= out_dim: ``W W' = 1``, every cosine of the teacher is kept exactly. in_dim > out_dim: ``W'W = 1``,
    a projection onto the part of the teacher's space that agrees best with the anchor; the rest is lost.
    """
    return MatrixAligner(in_dim, out_dim, _solve)


def _solve(x: Tensor, anchor: Tensor | None) -> Solution:
    u, _, vh = torch.linalg.svd(x.T @ required(anchor, "procrustes"), full_matrices=False)
    rotation = u @ vh
    return Solution(rotation, rotation.T, torch.zeros_like(x[0]))
