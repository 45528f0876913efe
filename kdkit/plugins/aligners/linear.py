"""Least squares to the anchor."""

from __future__ import annotations

import torch
from torch import Tensor

from kdkit.plugins.aligners.matrix import MatrixAligner, Solution, required


def linear(in_dim: int, out_dim: int, *, ridge: float = 1e-3) -> MatrixAligner:
    """``argmin |X W - A|^2 + r |W|^2``, and the same from ``X W`` back to ``X``.

    Nearer to the anchor than a rotation can be, at the teacher's expense: directions that the anchor does not
    have are shrunk away.

    Args:
        in_dim: the teacher's width.
        out_dim: the student's.
        ridge: r as a share of the mean variance of a dimension of X.
    """

    def solve(x: Tensor, anchor: Tensor | None) -> Solution:
        encoder = _least_squares(x, required(anchor, "linear"), ridge)
        return Solution(encoder, _least_squares(x @ encoder, x, ridge), torch.zeros_like(x[0]))

    return MatrixAligner(in_dim, out_dim, solve)


def _least_squares(x: Tensor, y: Tensor, ridge: float) -> Tensor:
    gram = x.T @ x
    shift = ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    # Minimum norm where directions are missing (a back map from fewer true dimensions than columns).
    solution: Tensor = torch.linalg.lstsq(gram + shift, x.T @ y, driver="gelsd").solution
    return solution
