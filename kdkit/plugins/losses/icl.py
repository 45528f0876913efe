"""Interactive contrastive learning (CLIP-KD, arXiv 2307.12732, section 3.2.5; used by MMKD-CLIP)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import LossInput, TeacherView
from kdkit.plugins.losses.rows import IMAGE, TEXT, AverageOver, average_weights, cross_modal, row_range, zero_with_graph
from kdkit.plugins.losses.similarity_tiles import (
    UnitRows,
    absent_samples,
    add_gradients,
    default_rows,
    parts,
    present_rows,
    similarities,
    with_gradients,
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
        pairings = [_pairing(view, rows) for view in cross_modal(batch)]
        if not pairings:
            # DistributedDataParallel requires a gradient of the scale too.
            return zero_with_graph(batch) + 0 * self.scale
        if self.mix_teachers:
            pairings = [_mixed(pairings, rows)]
        shares = average_weights([pairing.weight for pairing in pairings], self.average_over) / 2  # two directions
        # Teachers may share the student's rows: one gradient of each tensor is enough.
        student = {id(x): x for pairing in pairings for x in pairing.student.values()}
        compute = partial(_contrast, pairings, shares, list(student), rows)
        return with_gradients(compute, self._scale(), *student.values())

    def _scale(self) -> Tensor:
        if not self.exp:
            return self.scale
        with torch.no_grad():
            self.scale.clamp_(max=MAX_LOG_SCALE)  # where open_clip clamps after a step
        return self.scale.exp()


def _pairing(view: TeacherView, rows: range) -> _Pairing:
    absent = absent_samples(view.weight)
    own = None if absent is None else absent[rows.start : rows.stop]
    return _Pairing(
        view.weight,
        {name: present_rows(view.student[name], own) for name in (IMAGE, TEXT)},
        {name: present_rows(view.target[name].detach(), absent) for name in (IMAGE, TEXT)},
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


def _contrast(
    pairings: list[_Pairing], shares: Tensor, names: list[int], rows: range, scale: Tensor, *student: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """The weighted sum of both directions' cross-entropies, and the gradients of the scale and the student's rows.

    ``names`` are the student's tensors as :func:`id` gives them. Each softmax is over a whole row, so its slope is
    known as soon as its tile of rows is.
    """
    queries = dict(zip(names, map(UnitRows.of, student), strict=True))
    gradients = {name: torch.zeros_like(query.rows) for name, query in queries.items()}
    size, total = default_rows(scale.device), shares.shape[1]
    memory = student[0].new_empty(min(size, len(rows)) * total)
    value = student[0].new_zeros(())
    for pairing, share in zip(pairings, shares, strict=True):
        absent = absent_samples(pairing.weight)
        for query, key in ((IMAGE, TEXT), (TEXT, IMAGE)):
            name, keys = id(pairing.student[query]), UnitRows(pairing.target[key])
            for part in parts(range(len(rows)), size):
                own = slice(rows.start + part.start, rows.start + part.stop)
                tile = (part, slice(0, total))
                logits = similarities(queries[name], keys, tile, memory, scale)
                value += _to_slope_(logits, share[own], own.start, absent)
                add_gradients(logits, queries[name], keys, tile, gradients[name])
    to_scale = [queries[name].finish_gradient_(gradient, scale) for name, gradient in gradients.items()]
    return value, [torch.stack(to_scale).sum(), *gradients.values()]


def _to_slope_(logits: Tensor, share: Tensor, first: int, absent: Tensor | None) -> Tensor:
    """Turn the logits of some rows into ``share * (softmax - target)``; the first row's target is column ``first``.

    Returns:
        () their cross-entropies, weighted by ``share``.
    """
    if absent is not None:  # each softmax has a column that is present, or no weight
        logits.masked_fill_(absent, torch.finfo(logits.dtype).min)
    top = logits.amax(-1)
    right = logits.diagonal(first) - top
    total = logits.sub_(top[:, None]).exp_().sum(-1)
    logits.mul_((share / total)[:, None])
    logits.diagonal(first).sub_(share)
    return (share * (total.log() - right)).sum()
