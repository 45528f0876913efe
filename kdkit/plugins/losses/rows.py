"""What the losses share: rows that do not count are taken out, rows that count are averaged.

A row with weight 0 may hold anything, NaN included. It is replaced (``torch.where``) before any arithmetic,
not multiplied by 0 after it, so that neither the value nor a gradient ever sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from kdkit.core.contracts import LossInput, TeacherView

AverageOver = Literal["pairs", "samples", "teachers"]
IMAGE, TEXT = "image", "text"


def kept(x: Tensor, keep: Tensor) -> Tensor:
    """(B, D) rows where ``keep`` (B,) is true, zeros elsewhere."""
    return torch.where(keep.unsqueeze(-1), x, 0)


def cross_modal(batch: LossInput) -> list[TeacherView]:
    """The teachers that give both an image and a text row."""
    return [view for view in batch.teachers if IMAGE in view.target and TEXT in view.target]


def nothing(batch: LossInput) -> Tensor:
    """A scalar 0 with a graph, whatever the outputs hold."""
    outputs = [x for x in batch.student.values() if x.ndim]
    return torch.stack([torch.where(torch.zeros_like(x, dtype=torch.bool), x, 0).sum() for x in outputs]).sum()


def coefficients(weights: Sequence[Tensor], over: AverageOver) -> Tensor:
    """Weights of an average over (teacher, sample) pairs.

    Args:
        weights: one (B,) trust vector per teacher.
        over: what counts equally. ``pairs``: every (teacher, sample) pair in proportion to its trust;
            ``samples``: every sample that has a teacher; ``teachers``: every teacher that has a sample.

    Returns:
        (T, B) that sum to 1, or are all 0 when no row has weight.
    """
    w = torch.stack(list(weights))
    if over != "pairs":
        w = w / _or_one(w.sum(dim=0 if over == "samples" else 1, keepdim=True))
    return w / _or_one(w.sum())


def mean_distance(batch: LossInput, distance: Callable[[TeacherView], Tensor], over: AverageOver) -> Tensor:
    """The average of ``distance(teacher)``, (B,) and 0 in rows that do not count, over teachers and samples -> ()."""
    if not batch.teachers:
        return nothing(batch)
    share = coefficients([view.weight for view in batch.teachers], over)
    return (share * torch.stack([distance(view) for view in batch.teachers])).sum()


def _or_one(total: Tensor) -> Tensor:
    return torch.where(total > 0, total, 1)
