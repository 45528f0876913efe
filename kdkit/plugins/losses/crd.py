"""Contrastive relational distillation (CLIP-KD, arXiv 2307.12732, section 3.2.1), for many teachers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from kdkit.core.contracts import LossInput, TeacherView
from kdkit.plugins.losses.rows import IMAGE, TEXT, AverageOver, average_weights, cross_modal, row_range, zero_with_graph
from kdkit.plugins.losses.similarity_tiles import (
    Tile,
    UnitRows,
    absent_samples,
    add_gradients,
    add_softmaxes_,
    buffers,
    default_rows,
    gathered_normalizers,
    hide_,
    is_bounded,
    log_normalizers,
    present_rows,
    row_dots,
    shaped,
    similarities,
    tiles,
    weighted,
    with_gradients,
)


@dataclass(frozen=True)
class _Teacher:
    """One teacher's rows (B, D), which may be anything where ``weight`` (B,) is 0."""

    image: UnitRows
    text: UnitRows
    scale: float
    weight: Tensor
    absent: Tensor | None


@dataclass(frozen=True)
class _Group:
    """Teachers whose mean is one target, and ``share`` (B,): the weight of a row, and of a column, in the loss."""

    teachers: list[_Teacher]
    total: Tensor
    share: Tensor
    absent: Tensor | None

    def parts(self) -> list[Tensor]:
        """(B,) of ``share`` for each teacher."""
        total = torch.where(self.total > 0, self.total, 1)
        return [self.share * teacher.weight / total for teacher in self.teachers]


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
        chunk: rows of a tile of similarities; it has twice as many columns. Five tiles are in memory at a time,
            whatever the number of teachers. None for 384 on a CPU and 2048 on a GPU.

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
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        self.targets, self.temperature, self.temperatures = targets, temperature, dict(temperatures or {})
        self.student_temperature, self.within_domain = student_temperature, within_domain
        self.average_over, self.chunk = average_over, chunk

    def forward(self, batch: LossInput) -> Tensor:
        """``image`` and ``text`` rows (B, D) of teachers and student, and the student's ``logit_scale`` -> () >= 0.

        Of several ranks, each computes its images against all texts; these similarities serve both directions.
        """
        views = cross_modal(batch)
        if not views:
            return zero_with_graph(batch)
        groups = self._groups([self._teacher(view) for view in views])
        absent = absent_samples(torch.stack([view.weight for view in views]).sum(0))
        image, text = (present_rows(batch.student[name], absent) for name in (IMAGE, TEXT))
        scale, size = self._student_scale(batch), self.chunk or default_rows(image.device)
        found = tiles(row_range(batch), len(image), size)
        compute = _Divergence(groups, batch.domain if self.within_domain else None, found, batch.rows)
        with torch.no_grad():
            compute.prepare(image, text, scale, batch.gather)
        return with_gradients(compute, image, text, scale)

    def _groups(self, teachers: list[_Teacher]) -> list[_Group]:
        grouped = [teachers] if self.targets == "ensemble" else [[teacher] for teacher in teachers]
        totals = [torch.stack([teacher.weight for teacher in group]).sum(0) for group in grouped]
        shares = average_weights(totals, self.average_over) / 2  # the mean of both directions
        absent = [absent_samples(total) for total in totals]
        return [_Group(*group) for group in zip(grouped, totals, shares, absent, strict=True)]

    def _student_scale(self, batch: LossInput) -> Tensor:
        if self.student_temperature is None:
            return batch.student["logit_scale"]
        return batch.student[IMAGE].new_tensor(1 / self.student_temperature)

    def _teacher(self, view: TeacherView) -> _Teacher:
        scale = 1 / self.temperatures.get(view.name, self.temperature)
        image, text = (UnitRows.constant(view.target[name]) for name in (IMAGE, TEXT))
        return _Teacher(image, text, scale, view.weight, absent_samples(view.weight))


class _Divergence:
    """``sum_b share_b KL(mean of a group's probabilities || the student's)`` of both directions, and its gradients.

    The gradient with respect to the logits is ``share (q - p)``, known with the value. The slopes of both directions
    are added before they are propagated to the features. Five buffers of a tile's size serve all tiles and teachers.
    """

    def __init__(self, groups: list[_Group], domain: Tensor | None, found: list[Tile], own: slice) -> None:
        self._groups, self._domain, self._tiles, self._own = groups, domain, found, own

    def prepare(self, image: Tensor, text: Tensor, scale: Tensor, gather: Callable[[Tensor], Tensor]) -> None:
        """Find all normalizers; a collective call."""
        teachers = [teacher for group in self._groups for teacher in group.teachers]
        absent = [group.absent for group in self._groups]
        found = [log_normalizers(t.image, t.text, t.scale, self._tiles, [t.absent], self._domain) for t in teachers]
        student = log_normalizers(UnitRows.of(image), UnitRows.of(text), scale, self._tiles, absent, self._domain)
        normalizers = gathered_normalizers(torch.cat([*found, student]), gather)
        parts = [part for group in self._groups for part in group.parts()]
        self._teachers = [weighted(n, part) for n, part in zip(normalizers, parts, strict=False)]
        self._student = normalizers[len(teachers) :]

    def __call__(self, image: Tensor, text: Tensor, scale: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        images, texts = UnitRows.of(image), UnitRows.of(text)
        to_image, to_text = torch.zeros_like(image), torch.zeros_like(text)
        value = self._constant()
        memory = buffers(5, image, self._tiles)
        for tile in self._tiles:
            logits = similarities(images, texts, tile, memory[0], scale)
            slope, *spare = (shaped(part, tile) for part in memory[1:])
            value += self._add_slopes(slope.zero_(), logits, tile, spare, is_bounded(scale))
            add_gradients(slope, images, texts, tile, to_image, to_text)
        texts.finish_gradient_(to_text, scale)
        return value.to(image.dtype), (to_image, to_text, images.finish_gradient_(to_image, scale))

    def _constant(self) -> Tensor:
        """The terms of this rank's rows and columns that need no matrix."""
        total = []
        for group, normalizers in zip(self._groups, self._student, strict=True):
            share = group.share[self._own]
            log_share = torch.where(share > 0, normalizers[:, self._own] - share.log(), 0)
            total.append((share * log_share).sum())
        return torch.stack(total).sum()

    def _add_slopes(self, slope: Tensor, logits: Tensor, tile: Tile, spare: list[Tensor], bounded: bool) -> Tensor:
        """Add the slopes of the student's ``logits`` towards all targets; returns the other terms of the value ()."""
        by_row, by_column, scratch = spare
        value, teachers = slope.new_zeros(()), iter(self._teachers)
        for group, normalizers in zip(self._groups, self._student, strict=True):
            by_row.zero_()
            by_column.zero_()
            for teacher in group.teachers:
                found = similarities(teacher.image, teacher.text, tile, scratch.view(-1), teacher.scale)
                hide_(found, tile, teacher.absent, self._domain)
                add_softmaxes_(found, tile, next(teachers), by_row, by_column, bounded=is_bounded(teacher.scale))
            for target in (by_row, by_column):
                torch.clamp(target, min=torch.finfo(target.dtype).tiny, out=scratch).log_().sub_(logits)
                value += row_dots(target, scratch).sum()
                slope.sub_(target)
            hide_(scratch.copy_(logits), tile, group.absent, self._domain)
            add_softmaxes_(scratch, tile, weighted(normalizers, group.share), slope, slope, bounded=bounded)
        return value
