"""Target normalization: teachers' features differ in length and spread, which a squared distance depends on.

PHI-S (PHI Standardization, arXiv 2410.01680, section 3.3) rotates the features so that all dimensions have
the same variance, then divides by one number: balanced like standardization, yet it keeps distances.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.core.base.errors import KdkitError
from kdkit.core.project.recipe import Normalize

Array = np.ndarray[Any, Any]
Float64 = np.ndarray[Any, np.dtype[np.float64]]

STD_FLOOR = 1e-3
"""Standard deviations below this share of their root mean square are raised to it; a (nearly) constant
dimension must not be amplified."""


class TargetNorm(nn.Module):
    """Normalization of one signal of one teacher, fixed before training.

    ===============  ==========================================================================
    ``none``         ``y``
    ``unit``         ``y / |y|``
    ``standardize``  ``(y - mu) / sigma``, dimension by dimension
    ``phi-s``        ``phi^-1 H U' (y - mu)`` with covariance ``U diag(lambda) U'`` and
                     ``phi = sqrt(mean lambda)``; ``H`` from :func:`equalizer`
    ===============  ==========================================================================

    The last two are fitted, per signal, so products *between* image and text targets no longer measure similarity:
    use them with ``fd`` alone, not with ``icl`` or ``crd``.

    Args:
        dim: width D of the signal.
        kind: one of the table.
    """

    def __init__(self, dim: int, kind: Normalize) -> None:
        super().__init__()
        self.dim, self.kind = dim, kind
        if self.fitted:
            self.register_buffer("mean", torch.zeros(dim))
        if kind == "standardize":
            self.register_buffer("std", torch.ones(dim))
        if kind == "phi-s":
            self.register_buffer("matrix", torch.eye(dim))

    @property
    def fitted(self) -> bool:
        """Whether the norm has parameters to fit."""
        return self.kind in ("standardize", "phi-s")

    def fit(self, mean: Float64, covariance: Float64) -> None:
        """Set the buffers from the :class:`Moments` of the teacher's features (``full`` for ``phi-s``).

        Raises:
            KdkitError: features without variance.
        """
        variance = covariance.diagonal() if self.kind == "phi-s" else covariance
        phi = float(np.sqrt(variance.mean()))
        if phi == 0:
            raise KdkitError(
                "KD-DIST-027",
                f"features are the same for every sample, '{self.kind}' cannot normalize them",
                fix="check the teacher with 'kdkit features', or use 'targets: {normalize: unit}'",
            )
        self._set("mean", mean)
        if self.kind == "standardize":
            self._set("std", np.maximum(np.sqrt(variance), STD_FLOOR * phi))
        else:
            eigenvalues, vectors = np.linalg.eigh(covariance)
            self._set("matrix", equalizer(eigenvalues) @ vectors.T / phi)

    def forward(self, y: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        if self.kind == "none":
            return y
        if self.kind == "unit":
            return F.normalize(y, dim=-1)
        centered = y - self.get_buffer("mean")
        if self.kind == "standardize":
            return centered / self.get_buffer("std")
        return centered @ self.get_buffer("matrix").T

    def _set(self, name: str, value: Float64) -> None:
        self.get_buffer(name).copy_(torch.from_numpy(value))


def fit_norms(norms: Mapping[str, TargetNorm], chunks: Iterable[Mapping[str, Array]]) -> None:
    """Fit the norms of a teacher's signals in one pass over its features; no pass if there is nothing to fit.

    Args:
        chunks: signal -> (n, D); together the teacher's features of the training samples.

    Raises:
        KdkitError: NaN or infinite features, fewer than two rows, or features without variance.
    """
    moments = {signal: Moments(norm.dim, full=norm.kind == "phi-s") for signal, norm in norms.items() if norm.fitted}
    if not moments:
        return
    for chunk in chunks:
        for signal, seen in moments.items():
            seen.add(chunk[signal])
    for signal, seen in moments.items():
        norms[signal].fit(*seen.compute())


class Moments:
    """Mean and sample covariance of rows that come in chunks, in float64.

    Chunks are merged as in Chan, Golub, LeVeque (1979): no sum of squares of uncentered values.

    Args:
        dim: width D of a row.
        full: the covariance (D, D), or else its diagonal (D,) alone.
    """

    def __init__(self, dim: int, *, full: bool) -> None:
        self._full, self._count, self._mean = full, 0, np.zeros(dim)
        self._scatter = np.zeros((dim, dim) if full else dim)

    def add(self, chunk: Array) -> None:
        """(n, D) rows.

        Raises:
            KdkitError: NaN or infinite features.
        """
        x = np.asarray(chunk, dtype=np.float64)
        if not np.isfinite(x).all():
            raise KdkitError("KD-DIST-028", "NaN or infinite features", fix="'kdkit features verify' names the samples")
        if not len(x):
            return
        own, total = x.mean(axis=0), self._count + len(x)
        x, step, between = x - own, own - self._mean, self._count * len(x) / total
        self._scatter += x.T @ x + between * np.outer(step, step) if self._full else (x**2).sum(0) + between * step**2
        self._mean = self._mean + step * len(x) / total
        self._count = total

    def compute(self) -> tuple[Float64, Float64]:
        """Mean (D,), and covariance or variances.

        Raises:
            KdkitError: fewer than two rows.
        """
        if self._count < 2:
            raise KdkitError(
                "KD-DIST-029",
                f"target normalization needs at least two samples, there are {self._count}",
                fix="add training samples, or use 'targets: {normalize: unit}' in the recipe",
            )
        return self._mean, self._scatter / (self._count - 1)


def equalizer(variances: Float64) -> Float64:
    """An orthogonal H (D, D) such that H diag(variances) H' has equal diagonal entries.

    For D a power of two, the normalized Hadamard matrix (Sylvester), as in PHI-S, which works for any variances. Most
    other widths have no Hadamard matrix; there D - 1 plane rotations give the same property for these variances (the
    constructive proof of the Schur-Horn theorem).

    Example:
        >>> h = equalizer(np.array([4.0, 1.0, 1.0]))
        >>> np.round((h @ np.diag([4.0, 1.0, 1.0]) @ h.T).diagonal(), 6)
        array([2., 2., 2.])
    """
    dim = len(variances)
    if dim & (dim - 1) == 0:
        hadamard = np.ones((1, 1))
        while len(hadamard) < dim:
            hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
        return cast(Float64, hadamard / np.sqrt(dim))
    rotation, diagonal, mean = np.eye(dim), np.array(variances, dtype=np.float64), float(variances.mean())
    open_ = np.ones(dim, dtype=bool)
    for _ in range(dim - 1):
        high = int(np.where(open_, diagonal, -np.inf).argmax())
        low = int(np.where(open_, diagonal, np.inf).argmin())
        spread = diagonal[high] - diagonal[low]
        if spread <= 0:
            break
        # Rotate the two axes until 'high' has exactly the mean; open axes stay uncorrelated.
        sine = np.sqrt(np.clip((diagonal[high] - mean) / spread, 0.0, 1.0))
        cosine = np.sqrt(1 - sine**2)
        above, below = rotation[high].copy(), rotation[low].copy()
        rotation[high], rotation[low] = cosine * above + sine * below, cosine * below - sine * above
        diagonal[low] = diagonal[high] + diagonal[low] - mean
        diagonal[high], open_[high] = mean, False
    return rotation
