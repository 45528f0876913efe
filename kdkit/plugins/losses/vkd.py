"""Feature distillation through orthogonal projections (V_kD, arXiv 2403.06213; roymiles/vkd at 4b48050).

A linear head can learn what the student should: it may turn, stretch and drop directions until it fits. One that keeps
lengths and angles cannot, so the student's own features take on the teacher's geometry. The projection is the recipe's
``heads: orthogonal``; the losses here compare what comes out of it.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import LossInput, TeacherView
from kdkit.core.contracts.token_signals import HIDDEN, TOKENS
from kdkit.plugins.losses.rows import AverageOver, kept, mean_distance, nothing

Normalize = Literal["teacher", "both", "none"]
NORMALISE: tuple[Normalize, ...] = ("teacher", "both", "none")


def distance(student: Tensor, teacher: Tensor, normalize: Normalize) -> Tensor:
    """(..., D), (..., D) -> (...): smooth L1 (beta 1), mean over the D features.

    Args:
        normalize: whose rows are standardized over their features first (layer normalization without parameters): the
            teacher's, as the released code for classification does, both, or nobody's.
    """
    width = student.shape[-1:]
    if normalize != "none":
        teacher = F.layer_norm(teacher, width)
    if normalize == "both":
        student = F.layer_norm(student, width)
    return F.smooth_l1_loss(student, teacher, reduction="none").mean(-1)


class OrthogonalDistillation(nn.Module):
    """``sum over signals of smooth-L1(P s, LN(t))``, averaged over the (teacher, sample) pairs by trust.

    Args:
        normalize: see :func:`distance`; ``none`` for targets that the recipe standardizes dimension by dimension.
        average_over: what counts equally, see :func:`~kdkit.plugins.losses.rows.coefficients`.

    Raises:
        KdkitError: for another normalization.
    """

    def __init__(self, *, normalize: Normalize = "teacher", average_over: AverageOver = "pairs") -> None:
        super().__init__()
        self.normalize, self.average_over = _known(normalize, "vkd"), average_over

    def forward(self, batch: LossInput) -> Tensor:
        """Image and text rows of every teacher that gives them -> ()."""
        return mean_distance(batch, self._distance, self.average_over)

    def _distance(self, view: TeacherView) -> Tensor:
        """(B,); 0 in rows that do not count."""
        keep = view.weight > 0
        total = torch.zeros_like(view.weight)
        for signal in [name for name in ("image", "text") if name in view.target and name in view.student]:
            rows = distance(kept(view.student[signal], keep), kept(view.target[signal], keep), self.normalize)
            total = total + torch.where(keep, rows, 0)
        return total


class AnswerOrthogonalDistillation(nn.Module):
    """``smooth-L1(LN(P h), LN(g))`` of the states h and g from which student and teacher predict an answer's token, the
    mean over tokens and teachers by trust.

    Args:
        normalize: see :func:`distance`; ``both`` by default, because the last states of a language model have the
            length that its final norm gives them.

    Raises:
        KdkitError: for another normalization.
    """

    def __init__(self, *, normalize: Normalize = "both") -> None:
        super().__init__()
        self.normalize = _known(normalize, "answer-vkd")

    def forward(self, batch: LossInput) -> Tensor:
        """-> ().

        Raises:
            KdkitError: a teacher whose answer is made of other tokens.
        """
        views = [view for view in batch.teachers if HIDDEN in view.student and {HIDDEN, "tokens"} <= set(view.target)]
        if not views:
            return nothing(batch)
        values, weights = zip(*(self._sum(view, batch.student[TOKENS].long()) for view in views), strict=True)
        mass = batch.total(torch.stack(weights).sum())
        return torch.stack(values).sum() / torch.where(mass > 0, mass, 1)

    def _sum(self, view: TeacherView, ids: Tensor) -> tuple[Tensor, Tensor]:
        """(), () of one teacher: distances times trust, and the trust, over the tokens that it speaks about."""
        theirs = view.target["tokens"].long()
        places = min(ids.shape[1], theirs.shape[1])
        ids, theirs = ids[:, :places], theirs[:, :places]
        spoken = (view.weight > 0)[:, None] & (ids >= 0) & (theirs >= 0)
        if bool((spoken & (theirs != ids)).any()):
            raise KdkitError(
                "KD-LOSS-007",
                f"teacher '{view.name}' and the student split answers into different tokens",
                why="states are compared at the same tokens",
                fix="leave 'answer-vkd' out, or take another teacher",
            )
        sample, place = spoken.nonzero(as_tuple=True)
        weight = view.weight[sample]
        rows = distance(view.student[HIDDEN][sample, place], view.target[HIDDEN][sample, place], self.normalize)
        return (rows * weight).sum(), weight.sum()


def _known(normalize: Normalize, where: str) -> Normalize:
    if normalize not in NORMALISE:
        raise KdkitError(
            "KD-LOSS-008", f"there is no normalization '{normalize}'", where=where, fix=", ".join(NORMALISE)
        )
    return normalize
