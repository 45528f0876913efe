"""Shared by the losses: masking of rows without weight, and weighted averages.

A row of weight 0 may hold anything, NaN included. ``torch.where`` replaces it before any arithmetic: multiplying by 0
afterwards would leave NaN in values and gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from kdkit.core.contracts import LossInput, TeacherView

AverageOver = Literal["pairs", "samples", "teachers", "batch"]
IMAGE, TEXT = "image", "text"


def mask_rows(x: Tensor, keep: Tensor) -> Tensor:
    """(B, D) rows where ``keep`` (B,) is true, zeros elsewhere."""
    return torch.where(keep.unsqueeze(-1), x, 0)


def cross_modal(batch: LossInput) -> list[TeacherView]:
    """The teachers that give both an image and a text row."""
    return [view for view in batch.teachers if IMAGE in view.target and TEXT in view.target]


def zero_with_graph(batch: LossInput) -> Tensor:
    """A scalar 0 connected to every output, so that each parameter gets a gradient of 0. NaN in outputs is masked."""
    outputs = [x for x in batch.student.values() if x.ndim]
    return torch.stack([torch.where(torch.zeros_like(x, dtype=torch.bool), x, 0).sum() for x in outputs]).sum()


def row_range(batch: LossInput) -> range:
    """The rows of the batch whose terms this rank computes."""
    return range(*batch.rows.indices(len(batch.domain)))


def average_weights(
    weights: Sequence[Tensor], over: AverageOver, total: Callable[[Tensor], Tensor] = lambda x: x
) -> Tensor:
    """Weights of an average over (teacher, sample) pairs.

    Args:
        weights: one (B,) trust vector per teacher; of a rank's shard, (b,) with its ``total``.
        over: the unit of the average. ``pairs``: every (teacher, sample) pair in proportion to its trust;
            ``samples``: every sample with a teacher equally; ``teachers``: every teacher with a sample equally;
            ``batch``: every pair by its trust, divided by B: half the trust is half the loss.
        total: the sum over ranks, see :class:`~kdkit.core.contracts.LossInput`.

    Returns:
        (T, B) that sum to 1 over all ranks (``batch``: to the mean trust of a sample), or are all 0 when no row has
        weight.

    Example:
        >>> weights = [torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0])]
        >>> average_weights(weights, "samples")
        tensor([[0.2500, 0.5000],
                [0.2500, 0.0000]])
    """
    w = torch.stack(list(weights))
    if over == "batch":
        return w / total(w.new_full((), w.shape[1]))
    if over == "samples":
        w = w / _or_one(w.sum(dim=0, keepdim=True))
    if over == "teachers":
        w = w / _or_one(total(w.sum(dim=1, keepdim=True)))
    return w / _or_one(total(w.sum()))


def mean_distance(batch: LossInput, distance: Callable[[TeacherView], Tensor], over: AverageOver) -> Tensor:
    """Average over teachers and samples of ``distance(teacher)``, (B,) with 0 in rows without weight -> ()."""
    if not batch.teachers:
        return zero_with_graph(batch)
    share = average_weights([view.weight for view in batch.teachers], over, batch.total)
    return (share * torch.stack([distance(view) for view in batch.teachers])).sum()


def _or_one(total: Tensor) -> Tensor:
    return torch.where(total > 0, total, 1)
