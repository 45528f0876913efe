"""Interactive contrastive learning (CLIP-KD, arXiv 2307.12732, section 3.2.5; used by MMKD-CLIP)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import LossInput, TeacherView
from kdkit.plugins.losses.rows import (
    IMAGE,
    TEXT,
    AverageOver,
    average_weights,
    cross_modal,
    mask_rows,
    row_range,
    zero_with_graph,
)

MAX_LOG_SCALE = math.log(100)


@dataclass(frozen=True)
class _Pairing:
    """Student rows (b, D), of this rank, and target rows (B, D) of one softmax; zeros where ``weight`` (B,) is 0."""

    weight: Tensor
    student: Mapping[str, Tensor]
    target: Mapping[str, Tensor]


class InteractiveContrast(nn.Module):
    """``1/2 [CE(c s_I t_T') + CE(c s_T t_I')]``: student images against teacher texts, and the reverse.

    ``s`` are unit rows of the student, ``t`` the teacher's rows as the recipe normalizes them. Each softmax runs over
    the rows of one teacher: otherwise a row's teacher would identify its pair.

    Args:
        exp: the scale ``c`` is exp(parameter), at most 100, as in CLIP. False: the parameter itself, as in the
            released code of CLIP-KD and MMKD-CLIP, which thus starts at 2.66 instead of 14.3.
        learnable: train the parameter. False: a constant (MMKD-CLIP omits it from the optimizer).
        initial: start of the parameter; ln(1 / 0.07) in both papers.
        mix_teachers: one softmax over all samples' targets, each the mean of its teachers' targets by trust
            (with one teacher per sample: that teacher's, as released). Needs ``space: shared``.
        average_over: unit of the average, see :func:`~kdkit.plugins.losses.rows.average_weights`.
    """

    def __init__(
        self,
        *,
        exp: bool = True,
        learnable: bool = True,
        initial: float = math.log(1 / 0.07),
        mix_teachers: bool = False,
        average_over: AverageOver = "pairs",
    ) -> None:
        super().__init__()
        self.exp, self.mix_teachers, self.average_over = exp, mix_teachers, average_over
        start = torch.tensor(initial)
        if learnable:
            self.scale = nn.Parameter(start)
        else:
            self.register_buffer("scale", start)

    def forward(self, batch: LossInput) -> Tensor:
        """Teachers with ``image`` and ``text`` rows (B, D) -> () in [0, inf)."""
        rows = row_range(batch)
        parts = [_pairing(view, rows) for view in cross_modal(batch)]
        if not parts:
            # DistributedDataParallel requires a gradient of the scale too.
            return zero_with_graph(batch) + 0 * self.scale
        if self.mix_teachers:
            parts = [_mixed(parts, rows)]
        share = average_weights([part.weight for part in parts], self.average_over)[:, rows.start : rows.stop]
        scale = self._scale()
        return (share * torch.stack([_contrast(part, scale, rows) for part in parts])).sum()

    def _scale(self) -> Tensor:
        if not self.exp:
            return self.scale
        with torch.no_grad():
            self.scale.clamp_(max=MAX_LOG_SCALE)  # where open_clip clamps after a step
        return self.scale.exp()


def _pairing(view: TeacherView, rows: range) -> _Pairing:
    keep = view.weight > 0
    return _Pairing(
        view.weight,
        {name: mask_rows(view.student[name], keep[rows.start : rows.stop]) for name in (IMAGE, TEXT)},
        {name: mask_rows(view.target[name], keep) for name in (IMAGE, TEXT)},
    )


def _mixed(parts: list[_Pairing], rows: range) -> _Pairing:
    widths = {part.target[IMAGE].shape[-1] for part in parts}
    if len(widths) > 1:
        raise KdkitError(
            "KD-LOSS-001",
            "icl cannot put teachers of different widths into one softmax",
            why="widths " + ", ".join(map(str, sorted(widths))),
            fix="remove 'mix_teachers' from the recipe, or set 'space: shared'",
        )
    weight = torch.stack([part.weight for part in parts])
    total = weight.sum(0)
    share = (weight / torch.where(total > 0, total, 1)).unsqueeze(-1)
    own = share[:, rows.start : rows.stop]
    return _Pairing(
        total,
        {name: (own * torch.stack([part.student[name] for part in parts])).sum(0) for name in (IMAGE, TEXT)},
        {name: (share * torch.stack([part.target[name] for part in parts])).sum(0) for name in (IMAGE, TEXT)},
    )


def _contrast(part: _Pairing, scale: Tensor, rows: range) -> Tensor:
    """(b,) mean of both directions. A row without weight sees itself alone: a cross-entropy of exactly 0."""
    covered, place = part.weight > 0, torch.arange(len(part.weight), device=part.weight.device)
    own = slice(rows.start, rows.stop)
    hidden = ~(covered & covered[own, None] | (place == place[own, None]))
    total = torch.zeros_like(part.weight[own])
    for query, key in ((IMAGE, TEXT), (TEXT, IMAGE)):
        logits = scale * F.normalize(part.student[query], dim=-1) @ part.target[key].T
        logits = logits.masked_fill(hidden, -torch.inf)
        total = total + torch.logsumexp(logits, dim=-1) - logits.diagonal(offset=rows.start)
    return total / 2
