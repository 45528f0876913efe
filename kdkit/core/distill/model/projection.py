"""Projections between the student's outputs and one teacher's signals, so that a loss can compare the two.

Either heads map the student's outputs into the teacher's own space, or a fitted, frozen aligner maps the teacher's
signals into the student's space. The losses see no difference.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Aligner, TeacherView


def module_key(teacher: str) -> str:
    """A teacher's name as a key of ``nn.ModuleDict``, which forbids dots and its own method names."""
    return "@" + teacher.replace(".", ":")


class TeacherProjection(nn.Module):
    """The projection of one teacher.

    Args:
        heads: signal name -> map of the last dimension from the student's width to the teacher's; the same module under
            several names is one shared head. None: the student's outputs are not mapped.
        aligner: fitted :class:`~kdkit.core.contracts.Aligner` (frozen here), or None.
        norms: signal name -> target normalization, applied after the aligner.

    Example:
        >>> projection = TeacherProjection(make_heads({"image": 4}, {"image": 6}, shared_towers=False))
        >>> view = projection("radio", {"image": torch.ones(2, 4)}, {"image": torch.ones(2, 6)}, torch.ones(2))
        >>> view.student["image"].shape == view.target["image"].shape
        True
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

    def train(self, mode: bool = True) -> TeacherProjection:
        super().train(mode)
        if self.aligner is not None:
            self.aligner.eval()  # frozen: the target of a sample must not depend on its batch
        return self

    def forward(
        self, name: str, student: Mapping[str, Tensor], target: Mapping[str, Tensor], weight: Tensor
    ) -> TeacherView:
        """Student outputs (B, ..., D_s) and targets (B, ..., D_t) -> a view with equal widths per name.

        A target without an output of its name passes unchanged.
        """
        return TeacherView(
            name=name,
            weight=weight,
            target=self.align(target, student),
            student=self.project(student, target),
        )

    def align(self, target: Mapping[str, Tensor], signals: Container[str]) -> dict[str, Tensor]:
        """Targets (B, ..., D_t) as the losses see them, of the signals that the student has too; others unchanged."""
        return {signal: self.target(signal, y) if signal in signals else y for signal, y in target.items()}

    def project(self, student: Mapping[str, Tensor], signals: Iterable[str]) -> dict[str, Tensor]:
        """Student outputs (B, ..., D_s) in the teacher's space, of the signals that both have."""
        return {signal: self._project(signal, student[signal]) for signal in signals if signal in student}

    def _project(self, signal: str, x: Tensor) -> Tensor:
        return x if self.heads is None else cast(Tensor, self.heads[signal](x))

    def target(self, signal: str, y: Tensor) -> Tensor:
        """A target as the losses see it: aligned and normalized."""
        if self.aligner is not None:
            y = cast(Aligner, self.aligner).encode(signal, y)
        return cast(Tensor, self.norms[signal](y)) if signal in self.norms else y


class OrthogonalHead(nn.Module):
    """``x -> P x`` with a matrix P (D_t, D_s) whose columns are orthonormal: it keeps lengths and angles exactly.

    P is the orthogonal factor of the QR decomposition of a free matrix, so every optimizer step keeps it orthogonal.
    (V_kD, arXiv 2403.06213, uses the exponential of a skew-symmetric matrix: the same set of projections, slower.)

    Args:
        student, teacher: widths D_s and D_t.

    Raises:
        KdkitError: a student wider than the teacher, for which no such matrix exists.
    """

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        require_orthogonal_widths(student, teacher)
        self.weight = nn.Parameter(torch.empty(teacher, student))
        nn.init.orthogonal_(self.weight)

    @property
    def projection(self) -> Tensor:
        """P, (D_t, D_s); equals the free matrix where that is orthogonal."""
        q, r = torch.linalg.qr(self.weight)
        signs = torch.where(r.diagonal() < 0, -1.0, 1.0).to(q.dtype)
        return cast(Tensor, q * signs)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D_s) -> (..., D_t)."""
        return x @ self.projection.T


def require_orthogonal_widths(student: int, teacher: int) -> None:
    """Raises: KdkitError for a student wider than the teacher."""
    if student > teacher:
        raise KdkitError(
            "KD-DIST-025",
            f"no projection from {student} to {teacher} features keeps lengths and angles",
            where="heads: orthogonal",
            fix="use 'heads: linear' in the recipe for teachers that are narrower than the student",
        )


def make_heads(
    student: Mapping[str, int], teacher: Mapping[str, int], *, shared_towers: bool, orthogonal: bool = False
) -> dict[str, nn.Module]:
    """Bias-free linear heads from the student's widths to the teacher's, initialized orthogonal or kept so.

    An orthogonal map keeps cosines, so training starts from the student's own geometry. With ``shared_towers`` one
    head serves all signals of equal widths, which keeps cosines *between* image and text comparable.
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
"""Of :func:`fit_heads`, relative to the features' mean square; keeps weights of unused directions small."""


@torch.no_grad()
def fit_heads(projection: TeacherProjection, student: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Set linear heads to the ridge regression of the targets on the student's unit features, in place; orthogonal
    heads to the best orthogonal map (Schoenemann's solution of the Procrustes problem, 1966).

    Otherwise the first gradients of a new teacher would pull the student to a random rotation of that teacher's space.

    Args:
        student: signal -> (N, D_s), or (N, A_s, D_s) per token; rows of zeros on either side are ignored.
        target: signal -> (N, D_t) or (N, A_t, D_t), as stored.
    """
    assert projection.heads is not None
    shared: dict[int, list[str]] = {}
    for signal, head in projection.heads.items():
        shared.setdefault(id(head), []).append(signal)
    for signals in shared.values():
        pairs = [_rows(student[signal], target[signal]) for signal in signals]
        x = torch.cat([F.normalize(rows, dim=-1) for rows, _ in pairs]).double()
        y = torch.cat([projection.target(name, rows) for name, (_, rows) in zip(signals, pairs, strict=True)]).double()
        head = projection.heads[signals[0]]
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
    """The P (D_t, D_s) with orthonormal columns that minimizes ``|x P' - y|``."""
    u, _, v = torch.linalg.svd(y.T @ x, full_matrices=False)
    return cast(Tensor, u @ v)
