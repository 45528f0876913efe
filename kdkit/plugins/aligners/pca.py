"""Principal components, one set for image and text together."""

from __future__ import annotations

import torch
from torch import Tensor

from kdkit.plugins.aligners.matrix import MatrixAligner, Solution


def pca(in_dim: int, out_dim: int, *, center: bool = False) -> MatrixAligner:
    """Projection on the ``out_dim`` directions of largest variance; zeros are added where in_dim < out_dim.

    Args:
        in_dim: the teacher's width.
        out_dim: the student's.
        center: subtract the mean first, as textbooks do. False keeps cosines, which have the origin as their
            center: with in_dim <= out_dim exactly.
    """

    def solve(x: Tensor, _anchor: Tensor | None) -> Solution:
        mean = x.mean(0) if center else torch.zeros_like(x[0])
        _, vectors = torch.linalg.eigh((x - mean).T @ (x - mean))
        main = vectors.flip(-1)[:, :out_dim]
        # The sign of an eigenvector is arbitrary; this makes it the same on every machine.
        largest = main.gather(0, main.abs().argmax(0, keepdim=True))
        main = main * largest.sign()
        encoder = x.new_zeros(in_dim, out_dim)
        encoder[:, : main.shape[1]] = main
        return Solution(encoder, encoder.T, mean)

    return MatrixAligner(in_dim, out_dim, solve)
