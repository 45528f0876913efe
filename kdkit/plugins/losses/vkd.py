"""Feature distillation through orthogonal projections (V_kD, arXiv 2403.06213; roymiles/vkd at 4b48050).

A linear head can absorb the task: it may rotate, stretch and drop directions until it fits. An orthogonal head keeps
lengths and angles, so the student's features themselves take on the teacher's geometry. The recipe's
``heads: orthogonal`` makes the projection; these losses compare its outputs.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import LossInput, TeacherView
from kdkit.core.contracts.token_signals import HIDDEN, TOKENS
from kdkit.plugins.losses.rows import AverageOver, mask_rows, mean_distance, zero_with_graph

Normalize = Literal["teacher", "both", "none"]
NORMALIZATIONS: tuple[Normalize, ...] = ("teacher", "both", "none")


def distance(student: Tensor, teacher: Tensor, normalize: Normalize) -> Tensor:
    """(..., D), (..., D) -> (...): smooth L1 (beta 1), mean over the D features.

    Args:
        normalize: rows to standardize over their features first (layer normalization without parameters): the
            ``teacher``'s, as in the released code for classification, ``both``, or ``none``.

    Example:
        >>> x = torch.tensor([[1.0, 3.0]])
        >>> distance(x, 10 * x, "both") < 1e-6
        tensor([True])
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
        average_over: unit of the average, see :func:`~kdkit.plugins.losses.rows.average_weights`.

    Raises:
        KdkitError: an unknown normalization.
    """

    def __init__(self, *, normalize: Normalize = "teacher", average_over: AverageOver = "pairs") -> None:
        super().__init__()
        self.normalize, self.average_over = _checked(normalize, "vkd"), average_over

    def forward(self, batch: LossInput) -> Tensor:
        """Image and text rows (B, D) of every teacher that has them -> ()."""
        return mean_distance(batch, self._distance, self.average_over)

    def _distance(self, view: TeacherView) -> Tensor:
        """(B,); 0 in rows without weight."""
        keep = view.weight > 0
        total = torch.zeros_like(view.weight)
        for signal in [name for name in ("image", "text") if name in view.target and name in view.student]:
            rows = distance(mask_rows(view.student[signal], keep), mask_rows(view.target[signal], keep), self.normalize)
            total = total + torch.where(keep, rows, 0)
        return total


class AnswerOrthogonalDistillation(nn.Module):
    """``smooth-L1(LN(P h), LN(g))``, mean over answer tokens and teachers by trust.

    h and g are the hidden states from which student and teacher predict a token.

    Args:
        normalize: see :func:`distance`; ``both`` by default, because the final norm of a language model sets the length
            of its last states.

    Raises:
        KdkitError: an unknown normalization.
    """

    def __init__(self, *, normalize: Normalize = "both") -> None:
        super().__init__()
        self.normalize = _checked(normalize, "answer-vkd")

    def forward(self, batch: LossInput) -> Tensor:
        """Hidden states (B, S, H) of the student's heads and of teachers -> () in [0, inf).

        Raises:
            KdkitError: a teacher with another tokenization of the answer.
        """
        views = [view for view in batch.teachers if HIDDEN in view.student and {HIDDEN, "tokens"} <= set(view.target)]
        if not views:
            return zero_with_graph(batch)
        values, weights = zip(*(self._sum(view, batch.student[TOKENS].long()) for view in views), strict=True)
        mass = batch.total(torch.stack(weights).sum())
        return torch.stack(values).sum() / torch.where(mass > 0, mass, 1)

    def _sum(self, view: TeacherView, ids: Tensor) -> tuple[Tensor, Tensor]:
        """(), () of one teacher: sums over its answer tokens of distance times trust, and of trust."""
        teacher_ids = view.target["tokens"].long()
        places = min(ids.shape[1], teacher_ids.shape[1])
        ids, teacher_ids = ids[:, :places], teacher_ids[:, :places]
        shared = (view.weight > 0)[:, None] & (ids >= 0) & (teacher_ids >= 0)
        if bool((shared & (teacher_ids != ids)).any()):
            raise KdkitError(
                "KD-LOSS-007",
                f"teacher '{view.name}' and the student split answers into different tokens",
                why="states are compared at the same tokens",
                fix="remove 'answer-vkd' from the recipe, or choose a teacher with the student's tokenizer",
            )
        sample, place = shared.nonzero(as_tuple=True)
        weight = view.weight[sample]
        rows = distance(view.student[HIDDEN][sample, place], view.target[HIDDEN][sample, place], self.normalize)
        return (rows * weight).sum(), weight.sum()


def _checked(normalize: Normalize, where: str) -> Normalize:
    if normalize not in NORMALIZATIONS:
        raise KdkitError(
            "KD-LOSS-008",
            f"there is no normalization '{normalize}'",
            where=where,
            fix=f"choose one of {', '.join(NORMALIZATIONS)}",
        )
    return normalize
