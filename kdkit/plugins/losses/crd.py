"""Contrastive relational distillation (CLIP-KD, arXiv 2307.12732, section 3.2.1), for many teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kdkit.core.contracts import LossInput, TeacherView
from kdkit.plugins.losses.rows import IMAGE, TEXT, AverageOver, coefficients, cross_modal, kept, nothing


@dataclass(frozen=True)
class _Teacher:
    """One teacher's unit rows (B, D) in one direction; zeros where ``weight`` (B,) is 0."""

    query: Tensor
    key: Tensor
    scale: float
    weight: Tensor

    def probabilities(self, rows: slice, domain: Tensor | None) -> Tensor:
        """(rows, B): softmax over the samples that the teacher covers (in the row's domain)."""
        logits = self.scale * self.query[rows] @ self.key.T
        return logits.masked_fill(hidden(self.weight > 0, domain, rows), -torch.inf).softmax(-1)


def hidden(covered: Tensor, domain: Tensor | None, rows: slice) -> Tensor:
    """(rows, B) true where a softmax must not look. A sample always sees itself, so no softmax is empty."""
    number = torch.arange(len(covered), device=covered.device)
    seen = covered & (covered if domain is None else domain[rows, None] == domain)
    return ~(seen | (number[rows, None] == number))


class RelationalDistillation(nn.Module):
    """``KL(softmax(u_k t_I t_T') || softmax(c s_I s_T'))``, and text to image; the mean of both directions.

    It compares similarities, not features: teachers need neither the student's width nor a common space.
    Each softmax runs over the samples that the teacher covers only.

    Args:
        targets: ``teachers``: one KL per teacher. ``ensemble``: one KL from the trust-weighted mean of the
            teachers' probabilities. As a weighted sum of soft cross-entropies equals one against the
            weighted mean, both have the same gradient where the teachers cover the same samples. ``ensemble``
            needs one student softmax instead of one per teacher, and it also contrasts samples that no single
            teacher covers.
        temperature: 1 / u of every teacher; ``temperatures`` overrides it by teacher.
        student_temperature: 1 / c; None for the student's own, trained ``logit_scale``.
        within_domain: softmax only over samples of the row's own domain.
        average_over: what counts equally, see :func:`~kdkit.plugins.losses.rows.coefficients`.
        chunk: rows of similarities in memory at a time. A batch of more rows is computed once more in the
            backward pass instead of being kept: memory is chunk x B, not B x B x teachers.
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
        chunk: int = 1024,
    ) -> None:
        super().__init__()
        self.targets, self.temperature, self.temperatures = targets, temperature, dict(temperatures or {})
        self.student_temperature, self.within_domain = student_temperature, within_domain
        self.average_over, self.chunk = average_over, chunk

    def forward(self, batch: LossInput) -> Tensor:
        """Teachers that give ``image`` and ``text``; the student's, and its ``logit_scale`` -> ()."""
        views = cross_modal(batch)
        if not views:
            return nothing(batch)
        taught = torch.stack([view.weight > 0 for view in views]).any(0)
        student = {name: F.normalize(kept(batch.student[name], taught), dim=-1) for name in (IMAGE, TEXT)}
        scale = self._student_scale(batch)
        domain = batch.domain if self.within_domain else None
        parts = [
            self._direction(student[query], student[key], scale, self._teachers(views, query, key), domain)
            for query, key in ((IMAGE, TEXT), (TEXT, IMAGE))
        ]
        return (parts[0] + parts[1]) / 2

    def _student_scale(self, batch: LossInput) -> Tensor:
        if self.student_temperature is None:
            return batch.student["logit_scale"]
        return batch.student[IMAGE].new_tensor(1 / self.student_temperature)

    def _teachers(self, views: Sequence[TeacherView], query: str, key: str) -> list[_Teacher]:
        teachers = []
        for view in views:
            rows = {n: F.normalize(kept(view.target[n], view.weight > 0), dim=-1) for n in (IMAGE, TEXT)}
            scale = 1 / self.temperatures.get(view.name, self.temperature)
            teachers.append(_Teacher(rows[query], rows[key], scale, view.weight))
        return teachers

    def _direction(
        self, query: Tensor, key: Tensor, scale: Tensor, teachers: list[_Teacher], domain: Tensor | None
    ) -> Tensor:
        groups = [teachers] if self.targets == "ensemble" else [[teacher] for teacher in teachers]
        share = coefficients([_total(group) for group in groups], self.average_over)
        values = [self._rows(query, key, scale, group, domain) for group in groups]
        return (share * torch.stack(values)).sum()

    def _rows(self, query: Tensor, key: Tensor, scale: Tensor, group: list[_Teacher], domain: Tensor | None) -> Tensor:
        """(B,) divergences from one group of teachers' mean probabilities."""
        size = len(query)
        if size <= self.chunk:
            return _divergence(query, key, scale, group, domain, slice(0, size))
        pieces = [
            checkpoint(
                _divergence,
                query,
                key,
                scale,
                group,
                domain,
                slice(start, min(start + self.chunk, size)),
                use_reentrant=False,
            )
            for start in range(0, size, self.chunk)
        ]
        return torch.cat(pieces)


def _total(group: list[_Teacher]) -> Tensor:
    return torch.stack([teacher.weight for teacher in group]).sum(0)


def _divergence(
    query: Tensor, key: Tensor, scale: Tensor, group: list[_Teacher], domain: Tensor | None, rows: slice
) -> Tensor:
    """(rows,) KL(mean of the group's probabilities || the student's); 0 in rows that no teacher covers."""
    total = _total(group)
    with torch.no_grad():
        share = torch.stack([teacher.weight for teacher in group]) / torch.where(total > 0, total, 1)
        target = torch.zeros(len(query[rows]), len(key), dtype=query.dtype, device=query.device)
        for teacher, part in zip(group, share, strict=True):
            target += part[rows, None] * teacher.probabilities(rows, domain)
        entropy = -torch.special.xlogy(target, target).sum(-1)
    logits = scale * query[rows] @ key.T
    out = hidden(total > 0, domain, rows)
    log_mass = torch.logsumexp(logits.masked_fill(out, -torch.inf), dim=-1)
    # sum_j p_j (log_mass - z_j), without log-probabilities of -inf in masked places
    divergence: Tensor = target.sum(-1) * log_mass - (target * logits).sum(-1) - entropy
    return divergence
