"""Updates that leave the strongest directions of the previous version's weights as they are, without old samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdkit.core.contracts import Reporter, Silent


@dataclass(frozen=True)
class FrozenMatrix:
    """A weight, and the directions in which it stays.

    Attributes:
        weight: the parameter, seen as a matrix (rows, everything else).
        start: its value in the previous version.
        left: (rows, k) orthonormal columns; ``right``: (columns, k) likewise.
    """

    weight: nn.Parameter
    start: Tensor
    left: Tensor
    right: Tensor

    def restore(self, skipped: Tensor | None = None) -> None:
        """Weight := start + (I - L L') (weight - start) (I - R R'), in place, unless ``skipped``."""
        change = (self.weight - self.start).flatten(1)
        change = change - self.left @ (self.left.T @ change)
        change = change - (change @ self.right) @ self.right.T
        restored = self.start + change.view_as(self.weight)
        self.weight.copy_(restored if skipped is None else torch.where(skipped, self.weight, restored))


class FrozenDirections:
    """Restricts training to the weak singular directions of the weights (the null space of NuSA-CL, arXiv 2510.21175;
    OSF of PEFT, arXiv 2504.07097, is the same idea).

    The singular value decomposition of a trained weight says in which directions it answers strongly to its input.
    Those that carry a share ``energy`` of the sum of squared singular values stay; updates move the others. All
    trained matrices and kernels take part, but no embedding tables: a row of a word changes only if the word occurs.
    Vectors (biases, norms, the scale) have no directions to choose from; all of them stay.

    Args:
        student: with the weights of the previous version.
        energy: share in (0, 1].

    Example:
        >>> layer = nn.Linear(2, 2, bias=False)
        >>> _ = layer.weight.data.copy_(torch.diag(torch.tensor([3.0, 1.0])))
        >>> frozen = FrozenDirections(layer, 0.8)
        >>> _ = layer.weight.data.add_(1.0)
        >>> frozen.restore()
        >>> layer.weight.data.round(decimals=4).abs().tolist()
        [[3.0, 0.0], [0.0, 2.0]]
    """

    def __init__(self, student: nn.Module, energy: float, reporter: Reporter | None = None) -> None:
        self.energy, reporter = energy, reporter or Silent()
        trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
        tables = {id(module.weight) for module in student.modules() if isinstance(module, nn.Embedding)}
        chosen = [parameter for parameter in trained if parameter.ndim >= 2 and id(parameter) not in tables]
        self.vectors = [(parameter, parameter.detach().clone()) for parameter in trained if parameter.ndim < 2]
        self.matrices = list[FrozenMatrix]()
        for number, weight in enumerate(chosen, start=1):
            self.matrices.append(_freeze(weight, energy))
            reporter.progress("directions of the weights to keep", number, len(chosen))

    @property
    def nbytes(self) -> int:
        """Memory of starts and directions of the matrices."""
        return sum(x.nbytes for matrix in self.matrices for x in (matrix.start, matrix.left, matrix.right))

    @torch.no_grad()
    def restore(self, skipped: Tensor | None = None) -> None:
        """Undo what the last step changed in vectors and in frozen directions.

        Args:
            skipped: () bool on the device; where True, the step changed nothing and the weights keep every bit.
        """
        for matrix in self.matrices:
            matrix.restore(skipped)
        for vector, start in self.vectors:
            vector.copy_(start)


@torch.no_grad()
def _freeze(weight: nn.Parameter, energy: float) -> FrozenMatrix:
    left, values, right = torch.linalg.svd(weight.detach().flatten(1).float(), full_matrices=False)
    share = values.double().square().cumsum(0)
    strong = int((share < energy * share[-1]).sum()) + 1  # the first k that reach the share
    parts = (left[:, :strong], right[:strong].T)
    return FrozenMatrix(weight, weight.detach().clone(), *(x.to(weight.dtype).contiguous() for x in parts))
