"""What the losses of a step get: the whole batch, this rank's samples, or its rows against the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from torch import Tensor

from kdkit.core.contracts import CaptionView, LossInput, TeacherView
from kdkit.core.distill.loop.distributed import all_reduce_sum, gather_rows, own_rows
from kdkit.core.distill.model.projection import TeacherProjection

Share = Literal["whole", "samples", "rows"]
"""What a rank computes of a loss: all of it; the sum over its own samples; the terms of its rows of the batch."""


@dataclass(frozen=True)
class Targets:
    """A step's targets of some teachers.

    Attributes:
        rows: teacher -> signal -> (b, ...) of this rank's samples.
        weights: teacher -> (B,) of the global batch.
        domain: (B,) of the global batch; ``captions`` likewise.
    """

    rows: Mapping[str, Mapping[str, Tensor]]
    weights: Mapping[str, Tensor]
    domain: Tensor
    captions: CaptionView | None


class LossInputs:
    """Makes the inputs of a step's losses, each at its first use.

    A student's rows pass through a teacher's heads on their own rank; a loss of the whole batch alone needs more.
    Targets are aligned and normalized on their own rank, then gathered.

    Args:
        own: the student's outputs for this rank's samples.
        whole: makes those for the global batch.
        projections: teacher -> its projection, of the teachers that the losses compare with.
    """

    def __init__(
        self,
        own: Mapping[str, Tensor],
        whole: Callable[[], Mapping[str, Tensor]],
        targets: Targets,
        projections: Mapping[str, TeacherProjection],
    ) -> None:
        self._own, self._make_whole, self._targets, self._projections = own, whole, targets, projections
        self._rows = own_rows(len(targets.domain))
        self._made: dict[Share, LossInput] = {}

    def get(self, share: Share) -> LossInput:
        """The input of a loss of which this rank computes ``share``; may be a collective call."""
        if share not in self._made:
            make = {"whole": self._for_whole, "samples": self._for_samples, "rows": self._for_rows}[share]
            self._made[share] = make()
        return self._made[share]

    def _for_samples(self) -> LossInput:
        captions, rows = self._targets.captions, self._rows
        views = tuple(
            TeacherView(name, self._targets.weights[name][rows], self._own_targets[name], self._own_students[name])
            for name in self._projections
        )
        own = captions and CaptionView(captions.weight[rows], captions.text[rows])
        return LossInput(self._own, views, self._targets.domain[rows], all_reduce_sum, own)

    def _for_rows(self) -> LossInput:
        return replace(self._for_all(self._own_students), total=all_reduce_sum, rows=self._rows, gather=gather_rows)

    def _for_whole(self) -> LossInput:
        return self._for_all(
            {name: p.project(self._whole, self._targets.rows[name]) for name, p in self._projections.items()}
        )

    def _for_all(self, students: Mapping[str, Mapping[str, Tensor]]) -> LossInput:
        """Everything of the global batch, with ``students`` in the teachers' spaces."""
        views = tuple(
            TeacherView(name, self._targets.weights[name], self._all_targets[name], students[name])
            for name in self._projections
        )
        return LossInput(self._whole, views, self._targets.domain, captions=self._targets.captions)

    @cached_property
    def _whole(self) -> Mapping[str, Tensor]:
        return self._make_whole()

    @cached_property
    def _own_students(self) -> dict[str, dict[str, Tensor]]:
        return {name: p.project(self._own, self._targets.rows[name]) for name, p in self._projections.items()}

    @cached_property
    def _own_targets(self) -> dict[str, dict[str, Tensor]]:
        return {name: p.align(self._targets.rows[name], self._own) for name, p in self._projections.items()}

    @cached_property
    def _all_targets(self) -> dict[str, dict[str, Tensor]]:
        return {
            name: {signal: gather_rows(y) for signal, y in rows.items()} for name, rows in self._own_targets.items()
        }
