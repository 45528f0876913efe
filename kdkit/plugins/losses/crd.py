"""Contrastive relational distillation (CLIP-KD, arXiv 2307.12732, section 3.2.1), for many teachers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


@dataclass(frozen=True)
class _Teacher:
    """One teacher's unit rows (B, D) in one direction; zeros where ``weight`` (B,) is 0."""

    query: Tensor
    key: Tensor
    scale: float
    weight: Tensor

    def turned(self, query: str) -> _Teacher:
        """The rows with ``query`` as the query signal."""
        return self if query == IMAGE else replace(self, query=self.key, key=self.query)

    def probabilities(self, rows: slice, domain: Tensor | None) -> Tensor:
        """(rows, B): softmax over the samples that the teacher covers (in the row's domain)."""
        logits = self.scale * self.query[rows] @ self.key.T
        return logits.masked_fill_(hidden(self.weight > 0, domain, rows), -torch.inf).softmax(-1)


def hidden(covered: Tensor, domain: Tensor | None, rows: slice) -> Tensor:
    """(rows, B) true for entries outside of a softmax. Every sample is in its own, so no softmax is empty."""
    number = torch.arange(len(covered), device=covered.device)
    visible = covered & (covered if domain is None else domain[rows, None] == domain)
    return ~(visible | (number[rows, None] == number))


class RelationalDistillation(nn.Module):
    """``KL(softmax(u_k t_I t_T') || softmax(c s_I s_T'))``, and text to image; the mean of both directions.

    It compares similarities, not features: teachers need neither the student's width nor a common space. Each softmax
    runs over the samples that the teacher covers.

    Args:
        targets: ``teachers``: one KL per teacher. ``ensemble``: one KL from the trust-weighted mean of the teachers'
            probabilities. Both have the same gradient where the teachers cover the same samples. ``ensemble`` needs
            one student softmax instead of one per teacher, and also contrasts samples that no teacher has in common.
        temperature: 1 / u of every teacher; ``temperatures`` overrides it by teacher.
        student_temperature: 1 / c; None for the student's own, trained ``logit_scale``.
        within_domain: softmax only over samples of the row's own domain.
        average_over: unit of the average, see :func:`~kdkit.plugins.losses.rows.average_weights`.
        chunk: rows of similarities in memory at a time: a few buffers of chunk x B, whatever the number of
            teachers.

    Example:
        >>> rows = torch.eye(2)
        >>> student = {"image": rows, "text": rows, "logit_scale": torch.tensor(20.0)}
        >>> teacher = TeacherView("same", dict(image=rows, text=rows), {}, torch.ones(2))
        >>> float(RelationalDistillation(temperature=1 / 20)(LossInput(student, (teacher,), torch.zeros(2))))
        0.0
    """

    def __init__(
        self,
        *,
        targets: Literal["teachers", "ensemble"] = "teachers",
        temperature: float = 0.05,
        temperatures: Mapping[str, float] | None = None,
        student_temperature: float | None = None,
        within_domain: bool = False,
        average_over: AverageOver = "pairs",
        chunk: int = 512,
    ) -> None:
        super().__init__()
        self.targets, self.temperature, self.temperatures = targets, temperature, dict(temperatures or {})
        self.student_temperature, self.within_domain = student_temperature, within_domain
        self.average_over, self.chunk = average_over, chunk

    def forward(self, batch: LossInput) -> Tensor:
        """``image`` and ``text`` rows (B, D) of teachers and student, and the student's ``logit_scale`` -> () >= 0."""
        views = cross_modal(batch)
        if not views:
            return zero_with_graph(batch)
        taught = torch.stack([view.weight > 0 for view in views]).any(0)
        student = {name: F.normalize(mask_rows(batch.student[name], taught), dim=-1) for name in (IMAGE, TEXT)}
        scale = self._student_scale(batch)
        domain = batch.domain if self.within_domain else None
        teachers = [self._teacher(view) for view in views]
        chunks = _chunks(row_range(batch), self.chunk)
        parts = [
            self._direction(student[query], student[key], scale, [t.turned(query) for t in teachers], domain, chunks)
            for query, key in ((IMAGE, TEXT), (TEXT, IMAGE))
        ]
        return (parts[0] + parts[1]) / 2

    def _student_scale(self, batch: LossInput) -> Tensor:
        if self.student_temperature is None:
            return batch.student["logit_scale"]
        return batch.student[IMAGE].new_tensor(1 / self.student_temperature)

    def _teacher(self, view: TeacherView) -> _Teacher:
        keep = view.weight > 0
        rows = {name: F.normalize(mask_rows(view.target[name], keep), dim=-1) for name in (IMAGE, TEXT)}
        scale = 1 / self.temperatures.get(view.name, self.temperature)
        return _Teacher(rows[IMAGE], rows[TEXT], scale, view.weight)

    def _direction(
        self,
        query: Tensor,
        key: Tensor,
        scale: Tensor,
        teachers: list[_Teacher],
        domain: Tensor | None,
        chunks: list[slice],
    ) -> Tensor:
        groups = [teachers] if self.targets == "ensemble" else [[teacher] for teacher in teachers]
        share = average_weights([_total(group) for group in groups], self.average_over)
        parts = [
            cast(Tensor, _Divergence.apply(query, key, scale, rows, group, domain, chunks))
            for rows, group in zip(share, groups, strict=True)
        ]
        return torch.stack(parts).sum()


class _Divergence(torch.autograd.Function):
    """``sum_b share_b KL(mean of the group's probabilities || the student's)`` over this rank's rows, some at a time.

    The gradient with respect to a row's logits is ``share_b (q - p)``, known with the value. It is propagated to the
    features at once, so that nothing of size B x B outlives its chunk and nothing is computed twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        scale: Tensor,
        share: Tensor,
        group: list[_Teacher],
        domain: Tensor | None,
        chunks: list[slice],
    ) -> Tensor:
        total = _total(group)
        value, to_scale = query.new_zeros(()), query.new_zeros(())
        to_query, to_key = torch.zeros_like(query), torch.zeros_like(key)
        for rows in chunks:
            target = _mean_probabilities(group, total, rows, domain)
            similarity = query[rows] @ key.T
            out = hidden(total > 0, domain, rows)
            log_q = (scale * similarity).masked_fill_(out, -torch.inf).log_softmax(-1)
            # Rows without a teacher have a target of 0; masked columns have log q = -inf.
            divergence = (torch.special.xlogy(target, target) - target * log_q.masked_fill(out, 0)).sum(-1)
            value += (share[rows] * divergence).sum()
            if any(ctx.needs_input_grad):
                slope = share[rows, None] * (target.sum(-1, keepdim=True) * log_q.exp_() - target)
                to_query[rows] = scale * slope @ key
                to_key += scale * slope.T @ query[rows]
                to_scale += (slope * similarity).sum()
        ctx.save_for_backward(to_query, to_key, to_scale)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        to_query, to_key, to_scale = ctx.saved_tensors
        return grads[0] * to_query, grads[0] * to_key, grads[0] * to_scale, None, None, None, None


def _chunks(rows: range, size: int) -> list[slice]:
    return [slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size)]


def _total(group: list[_Teacher]) -> Tensor:
    return torch.stack([teacher.weight for teacher in group]).sum(0)


def _mean_probabilities(group: list[_Teacher], total: Tensor, rows: slice, domain: Tensor | None) -> Tensor:
    """(rows, B): the teachers' softmaxes, averaged by trust; 0 in rows that no teacher covers."""
    share = [teacher.weight / torch.where(total > 0, total, 1) for teacher in group]
    mean = share[0][rows, None] * group[0].probabilities(rows, domain)
    for part, teacher in zip(share[1:], group[1:], strict=True):
        mean += part[rows, None] * teacher.probabilities(rows, domain)
    return mean
