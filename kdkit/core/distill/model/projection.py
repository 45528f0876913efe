"""What stands between the student's outputs and one teacher's signals, so that a loss can compare the two.

Either the student goes to the teacher (a head per signal, in the teacher's own space), or the teacher
comes to the student (a fitted, frozen aligner). The losses cannot tell which.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Aligner, TeacherView

PREVIOUS = "@previous"
"""Name of the view of the student's previous version; no teacher can be called so."""


def module_key(teacher: str) -> str:
    """A teacher's name as a key of ``nn.ModuleDict``, which forbids dots and its own method names."""
    return "@" + teacher.replace(".", ":")


class Bridge(nn.Module):
    """One teacher's bridge.

    Args:
        heads: signal name -> map of the last dimension from the student's width to the teacher's; the same module under
            several names is one shared head. None: the student's outputs are taken as they are.
        aligner: fitted :class:`~kdkit.core.contracts.Aligner` (frozen here), or None.
        norms: signal name -> target normalization, applied after the aligner.
    """

    def __init__(
        self,
        heads: Mapping[str, nn.Module] | None = None,
        aligner: nn.Module | None = None,
        norms: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.heads = None if heads is None else nn.ModuleDict(heads)
        self.aligner = None if aligner is None else aligner.requires_grad_(False).eval()
        self.norms = nn.ModuleDict(norms or {})

    def train(self, mode: bool = True) -> Bridge:
        super().train(mode)
        if self.aligner is not None:
            self.aligner.eval()  # frozen: the target of a sample must not depend on its batch
        return self

    def forward(
        self, name: str, student: Mapping[str, Tensor], target: Mapping[str, Tensor], weight: Tensor
    ) -> TeacherView:
        """Student outputs (B, ..., D_s) and targets (B, ..., D_t) -> a view in which those of one name have one width.

        A target that no output is named after passes through as it is.
        """
        return TeacherView(
            name=name,
            weight=weight,
            target={signal: self.target(signal, y) if signal in student else y for signal, y in target.items()},
            student={signal: self._student(signal, student[signal]) for signal in target if signal in student},
        )

    def _student(self, signal: str, x: Tensor) -> Tensor:
        return x if self.heads is None else cast(Tensor, self.heads[signal](x))

    def target(self, signal: str, y: Tensor) -> Tensor:
        """A target row as the losses see it: aligned and normalized."""
        if self.aligner is not None:
            y = cast(Aligner, self.aligner).encode(signal, y)
        return cast(Tensor, self.norms[signal](y)) if signal in self.norms else y


class OrthogonalHead(nn.Module):
    """``x -> P x`` with a matrix P (D_t, D_s) whose columns are orthonormal: it keeps lengths and angles exactly.

    P is the orthogonal factor of the QR decomposition of a free matrix, so that whatever the optimizer does, it stays
    orthogonal (V_kD, arXiv 2403.06213, which takes the exponential of a skew-symmetric matrix instead: the same set of
    projections on another path, and slower).

    Args:
        student, teacher: widths D_s and D_t.

    Raises:
        KdkitError: a student wider than the teacher, for which there is no such matrix.
    """

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        if student > teacher:
            raise KdkitError(
                "KD-DIST-025",
                f"no projection from {student} to {teacher} features keeps lengths and angles",
                where="heads: orthogonal",
                fix="'heads: linear' in the recipe for teachers that are narrower than the student",
            )
        self.weight = nn.Parameter(torch.empty(teacher, student))
        nn.init.orthogonal_(self.weight)

    @property
    def projection(self) -> Tensor:
        """P, (D_t, D_s); the free matrix itself where that is orthogonal."""
        q, r = torch.linalg.qr(self.weight)
        signs = torch.where(r.diagonal() < 0, -1.0, 1.0).to(q.dtype)
        return cast(Tensor, q * signs)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D_s) -> (..., D_t)."""
        return x @ self.projection.T


def make_heads(
    student: Mapping[str, int], teacher: Mapping[str, int], *, shared_towers: bool, orthogonal: bool = False
) -> dict[str, nn.Module]:
    """Bias-free linear heads from the student's widths to the teacher's, orthogonal at the start or for ever.

    An orthogonal map keeps cosines, so at the start the teacher's space sees the student's own geometry.
    With ``shared_towers`` one head serves all signals of equal widths: cosines *between* image and text in
    the teacher's space then are cosines in one image of the student's space.
    """
    heads: dict[str, nn.Module] = {}
    by_width: dict[tuple[int, int], nn.Module] = {}
    for signal, width in teacher.items():
        key = (student[signal], width)
        if not shared_towers or key not in by_width:
            by_width[key] = OrthogonalHead(*key) if orthogonal else _linear(*key)
        heads[signal] = by_width[key]
    return heads


def _linear(student: int, teacher: int) -> nn.Linear:
    head = nn.Linear(student, teacher, bias=False)
    nn.init.orthogonal_(head.weight)
    return head


RIDGE = 1e-2
"""Of :func:`fit_heads`, as a share of the features' mean square: directions that the student hardly uses stay small."""


@torch.no_grad()
def fit_heads(bridge: Bridge, student: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Set the heads to the ridge regression of the targets on the student's unit features, in place; orthogonal ones
    to the best orthogonal map (Schoenemann's solution of the Procrustes problem, 1966).

    A new teacher then starts from what the student knows already, and its first gradients do not pull the
    student towards a random rotation of that teacher's space.

    Args:
        student: signal -> (N, D_s) or (N, A_s, D_s); ``target``: signal -> (N, D_t) or (N, A_t, D_t), as they are in
            the store. Of answers with a row per token, rows that are zero on either side are left out.
    """
    assert bridge.heads is not None
    shared: dict[int, list[str]] = {}
    for signal, head in bridge.heads.items():
        shared.setdefault(id(head), []).append(signal)
    for signals in shared.values():
        pairs = [_rows(student[signal], target[signal]) for signal in signals]
        x = torch.cat([F.normalize(rows, dim=-1) for rows, _ in pairs]).double()
        y = torch.cat([bridge.target(name, rows) for name, (_, rows) in zip(signals, pairs, strict=True)]).double()
        head = bridge.heads[signals[0]]
        cast(nn.Linear, head).weight.copy_(_procrustes(x, y) if isinstance(head, OrthogonalHead) else _ridge(x, y))


def _rows(student: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if student.ndim == 2:
        return student, target
    places = min(student.shape[1], target.shape[1])
    x, y = student[:, :places].flatten(0, 1), target[:, :places].flatten(0, 1)
    both = x.any(-1) & y.any(-1)
    return x[both], y[both]


def _ridge(x: Tensor, y: Tensor) -> Tensor:
    gram = x.T @ x
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return cast(Tensor, torch.linalg.solve(gram, x.T @ y)).T


def _procrustes(x: Tensor, y: Tensor) -> Tensor:
    """The P (D_t, D_s) with orthonormal columns that makes ``|x P' - y|`` smallest."""
    u, _, v = torch.linalg.svd(y.T @ x, full_matrices=False)
    return cast(Tensor, u @ v)
