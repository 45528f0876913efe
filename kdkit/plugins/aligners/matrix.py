"""Aligners that are one matrix for all signals, solved in closed form: Procrustes, PCA, least squares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.core.base.errors import KdkitError


@dataclass(frozen=True)
class Solution:
    """In float64: ``encoder`` (in_dim, out_dim), ``decoder`` (out_dim, in_dim), ``mean`` (in_dim,)."""

    encoder: Tensor
    decoder: Tensor
    mean: Tensor


Solver = Callable[[Tensor, "Tensor | None"], Solution]
"""Unit rows (N, in_dim) of all signals, and their anchor (N, out_dim) if there is one -> the solution."""


class MatrixAligner(nn.Module):
    """``z = (x / |x| - mean) @ encoder``, the same for every signal.

    Image and text share the matrix, so an orthogonal one keeps every image-text cosine of the teacher.

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
    """The anchor.

    Raises:
        KdkitError: when there is none.
    """
    if anchor is None:
        raise KdkitError(
            "KD-ALIGN-001",
            f"aligner '{aligner}' needs an anchor, the features to which all teachers are aligned",
            fix="set 'anchor' in the recipe, or use 'pca' or 'autoencoder', which need none",
        )
    return anchor


def procrustes(in_dim: int, out_dim: int) -> MatrixAligner:
    """Orthogonal Procrustes (Schönemann 1966): ``argmin |X W - A|`` over W with orthonormal columns or rows.

    ``W = U V'`` from ``X'A = U S V'``. in_dim <= out_dim: ``W W' = 1`` keeps every cosine of the teacher exactly.
    in_dim > out_dim: ``W'W = 1`` projects onto the part of the teacher's space that fits the anchor best.

    Example:
        >>> x = torch.eye(2)
        >>> rotation = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
        >>> aligner = procrustes(2, 2)
        >>> aligner.fit({"image": x}, {"image": x @ rotation})
        >>> torch.allclose(aligner.encoder, rotation)
        True
    """
    return MatrixAligner(in_dim, out_dim, _rotation)


def _rotation(x: Tensor, anchor: Tensor | None) -> Solution:
    u, _, vh = torch.linalg.svd(x.T @ required(anchor, "procrustes"), full_matrices=False)
    rotation = u @ vh
    return Solution(rotation, rotation.T, torch.zeros_like(x[0]))


def pca(in_dim: int, out_dim: int, *, center: bool = False) -> MatrixAligner:
    """Projection on the ``out_dim`` directions of largest variance, padded with zeros if in_dim < out_dim.

    Args:
        in_dim: the teacher's width.
        out_dim: the student's.
        center: subtract the mean first. False keeps cosines, exactly if in_dim <= out_dim.
    """

    def solve(x: Tensor, _anchor: Tensor | None) -> Solution:
        mean = x.mean(0) if center else torch.zeros_like(x[0])
        _, vectors = torch.linalg.eigh((x - mean).T @ (x - mean))
        main = vectors.flip(-1)[:, :out_dim]
        # Eigenvectors have arbitrary signs; fix them for every machine.
        largest = main.gather(0, main.abs().argmax(0, keepdim=True))
        main = main * largest.sign()
        encoder = x.new_zeros(in_dim, out_dim)
        encoder[:, : main.shape[1]] = main
        return Solution(encoder, encoder.T, mean)

    return MatrixAligner(in_dim, out_dim, solve)


def linear(in_dim: int, out_dim: int, *, ridge: float = 1e-3) -> MatrixAligner:
    """Ridge regression: ``argmin |X W - A|^2 + r |W|^2``, and the same from ``X W`` back to ``X``.

    Fits the anchor better than a rotation, at the teacher's expense: directions that the anchor lacks shrink.

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
