"""The targets of a run: what each teacher gives for its samples, and what their captions say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdkit.core.contracts import CaptionView, SignalSpec
from kdkit.core.distill.plan.types import Floats, Indices


@dataclass(frozen=True)
class TeacherTargets:
    """One teacher's targets, from a column of the feature store, a live teacher or the previous version.

    Attributes:
        name: the teacher, or ``@previous``.
        widths: signals that are compared with the student output of the same name -> width of a row.
        rows: (N,) row of each sample in the teacher's column, -1 where it has none.
        weight: (N,) float32 trust; 0 where it has no row or may not teach.
        gather: (signal, rows) -> (len(rows), *shape).
        raw: other signals that a loss reads; they reach it as stored.
        prefetch: prepares ``gather`` for the rows of several batches; None if that gains nothing.
        token_lengths: signals of ``widths`` with a row per answer token -> maximal number of tokens.
        sharded_gather: ranks share the work of ``gather``, so all must request the same rows.

    Example:
        >>> features = np.arange(6, dtype=np.float32).reshape(3, 2)
        >>> radio = TeacherTargets(
        ...     name="radio",
        ...     widths={"image": 2},
        ...     rows=np.array([2, 0, -1]),
        ...     weight=np.array([1, 0.5, 0], dtype=np.float32),
        ...     gather=lambda signal, rows: features[rows],
        ... )
        >>> batch = np.array([1, 2])
        >>> radio.load(batch, radio.weight[batch])["image"]
        tensor([[0., 1.],
                [0., 0.]])
    """

    name: str
    widths: Mapping[str, int]
    rows: Indices
    weight: Floats
    gather: Callable[[str, Indices], np.ndarray[Any, Any]]
    raw: tuple[SignalSpec, ...] = ()
    prefetch: Callable[[Sequence[Indices]], None] | None = None
    token_lengths: Mapping[str, int] = field(default_factory=dict)
    sharded_gather: bool = False

    @property
    def signals(self) -> tuple[str, ...]:
        return (*self.widths, *(spec.name for spec in self.raw))

    def taught(self, samples: Indices) -> Indices:
        """Those of ``samples`` that the teacher teaches."""
        return samples[self.weight[samples] > 0]

    def rows_of(self, indices: Indices, weight: Floats) -> Indices:
        """Column rows of the samples with a weight."""
        return self.rows[indices[weight > 0]]

    def load(self, indices: Indices, weight: Floats) -> dict[str, Tensor]:
        """Signal -> (B, width) or (B, tokens, width) float32, raw ones (B, *shape); zeros where ``weight`` is 0."""
        taught = np.flatnonzero(weight > 0)
        layouts: dict[str, tuple[tuple[int, ...], str]] = {s: (self._shape(s), "float32") for s in self.widths}
        layouts |= {spec.name: (spec.shape, spec.dtype) for spec in self.raw}
        loaded: dict[str, Tensor] = {}
        for signal, (shape, dtype) in layouts.items():
            full = np.zeros((len(indices), *shape), dtype=dtype)
            if len(taught):
                full[taught] = self.gather(signal, self.rows_of(indices, weight))
            loaded[signal] = torch.from_numpy(full)
        return loaded

    def _shape(self, signal: str) -> tuple[int, ...]:
        width = self.widths[signal]
        return (self.token_lengths[signal], width) if signal in self.token_lengths else (width,)


@dataclass(frozen=True)
class CaptionTargets:
    """The samples' own texts as a source of knowledge.

    Attributes:
        weight: (N,) float32 trust in each sample's text; 0 without a text.
        text: (N,) equal numbers for equal texts.
    """

    weight: Floats
    text: Indices

    def load(self, indices: Indices) -> CaptionView:
        """The captions of a batch."""
        return CaptionView(torch.from_numpy(self.weight[indices]), torch.from_numpy(self.text[indices]))

    def with_added(self, count: int) -> CaptionTargets:
        """Extended by ``count`` samples with other texts and weight 1."""
        first = int(self.text.max(initial=-1)) + 1
        return CaptionTargets(
            np.concatenate([self.weight, np.ones(count, dtype=np.float32)]),
            np.concatenate([self.text, np.arange(first, first + count)]),
        )
