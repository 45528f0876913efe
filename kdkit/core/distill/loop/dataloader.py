"""Batches for the task: student inputs (decoded, prepared, kept in memory while they fit) and teacher rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from kdkit.core.contracts import Sample, SignalSpec, Student
from kdkit.core.data.images import decoding_threads, open_image
from kdkit.core.distill.loop.sampler import Indices
from kdkit.core.distill.model.projection import PREVIOUS

if TYPE_CHECKING:
    from kdkit.core.data import SampleIndex

Floats = np.ndarray[Any, np.dtype[np.float32]]
GIB = 2**30
VISIT_STEPS = 8
"""Steps for which a parked teacher computes at a time: its weights are moved once for all of them."""


@dataclass(frozen=True)
class Teaching:
    """What one teacher may teach in this run.

    Attributes:
        name: the teacher, or ``@previous``.
        widths: signals that are compared with a student output of the same name -> width of a row.
        rows: (N,) row of each table sample in the teacher's column, -1 where it has none.
        weight: (N,) float32 trust; 0 where it has no row or may not teach.
        gather: (signal, rows) -> (len(rows), *shape).
        raw: other signals that a loss reads, which reach it as they are stored.
        visit: makes ready what ``gather`` gives for the rows of several batches; None where it need not be.
        places: signals of ``widths`` that have a row for each token of an answer -> how many tokens.
        together: the processes of a run share the work of ``gather``, so all must ask for the same rows.
    """

    name: str
    widths: Mapping[str, int]
    rows: Indices
    weight: Floats
    gather: Callable[[str, Indices], np.ndarray[Any, Any]]
    raw: tuple[SignalSpec, ...] = ()
    visit: Callable[[Sequence[Indices]], None] | None = None
    places: Mapping[str, int] = field(default_factory=dict)
    together: bool = False

    def wanted(self, indices: Indices, weight: Floats) -> Indices:
        """Rows of the samples that are taught."""
        return self.rows[indices[weight > 0]]

    def targets(self, indices: Indices, weight: Floats) -> dict[str, Tensor]:
        """Signal -> (B, width) or (B, places, width) float32, raw ones (B, *shape); zeros where ``weight`` is 0."""
        taught = np.flatnonzero(weight > 0)
        out: dict[str, Tensor] = {}
        layouts: dict[str, tuple[tuple[int, ...], str]] = {s: (self._shape(s), "float32") for s in self.widths}
        layouts |= {spec.name: (spec.shape, spec.dtype) for spec in self.raw}
        for signal, (shape, dtype) in layouts.items():
            full = np.zeros((len(indices), *shape), dtype=dtype)
            if len(taught):
                full[taught] = self.gather(signal, self.wanted(indices, weight))
            out[signal] = torch.from_numpy(full)
        return out

    def _shape(self, signal: str) -> tuple[int, ...]:
        width = self.widths[signal]
        return (self.places[signal], width) if signal in self.places else (width,)


class StudentInputs:
    """Prepared inputs of samples. No augmentation: the teachers' features are of the plain image.

    Inputs are kept in memory while they fit in ``budget`` bytes (each sample is then decoded once a run) and
    are decoded again every time beyond it.
    """

    def __init__(self, student: Student, table: SampleIndex, *, budget: int = 2 * GIB) -> None:
        self._student, self._table = student, table
        self._budget = self._room = budget
        self._kept: dict[int, Mapping[str, Tensor]] = {}
        self._added: tuple[Sample, ...] = ()
        self._pool = ThreadPoolExecutor(decoding_threads())

    def add(self, samples: Sequence[Sample]) -> int:
        """Samples beside those of the table, in the place of any that were added before; the index of the first."""
        first = len(self._table)
        for index in [index for index in self._kept if index >= first]:
            self._room += _size(self._kept.pop(index))
        self._added = tuple(samples)
        return first

    def batch(self, indices: Indices) -> dict[str, Tensor]:
        """Stacked inputs (len(indices), ...)."""
        rows = list(self._pool.map(self._row, indices.tolist()))
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def expected_bytes(self, indices: Indices) -> int:
        """What keeping the inputs of ``indices`` takes, at most the budget."""
        return min(self._budget, _size(self._row(int(indices[0]))) * len(indices))

    def _row(self, index: int) -> Mapping[str, Tensor]:
        row = self._kept.get(index)
        if row is None:
            first = len(self._table)
            sample = self._table.samples[index] if index < first else self._added[index - first]
            row = self._student.prepare(open_image(sample), sample)
            size = _size(row)
            if self._room >= size:
                self._room -= size
                self._kept[index] = row
        return row

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _size(row: Mapping[str, Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in row.values())


@dataclass(frozen=True)
class Batch:
    """What :class:`~kdkit.core.distill.model.task.DistillTask` takes."""

    inputs: dict[str, Tensor]
    targets: dict[str, dict[str, Tensor]]
    weights: dict[str, Tensor]
    domain: Tensor

    def to(self, device: torch.device) -> dict[str, Any]:
        """Keyword arguments of the task's forward, on ``device``."""

        def move(x: Tensor) -> Tensor:
            return x.to(device, non_blocking=True)

        return {
            "inputs": {k: move(v) for k, v in self.inputs.items()},
            "targets": {t: {k: move(v) for k, v in row.items()} for t, row in self.targets.items()},
            "weights": {k: move(v) for k, v in self.weights.items()},
            "domain": move(self.domain),
        }


class Schedule(Protocol):
    """The samples of every step: those of a whole run, or of a part of it."""

    def __len__(self) -> int:
        """One more than the last step."""

    def __getitem__(self, step: int) -> Indices: ...


class Feed:
    """The batch of any step; the next one is made while the current one is used.

    Args:
        one_teacher: each sample is taught by one of its teachers, drawn uniformly (MMKD-CLIP's released code). The
            previous version is none of them: it speaks of all that it knows, or nobody would keep what is not drawn.
        own: teachers of which a process needs the rows of its share alone (``DistillTask.own``).
        rank, world: this process prepares its share of the student inputs; other teachers' rows are of the whole batch.
    """

    pauses: frozenset[int] = frozenset()
    """Steps before which something happens that takes long."""

    def __init__(
        self,
        schedule: Schedule,
        inputs: StudentInputs,
        teachings: Sequence[Teaching],
        domain: Indices,
        *,
        one_teacher: bool,
        seed: int,
        own: Collection[str] = (),
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._schedule, self._inputs, self._teachings, self._domain = schedule, inputs, teachings, domain
        self._drawn = [t.name for t in teachings if t.name != PREVIOUS] if one_teacher else []
        self._seed, self._own, self._rank, self._world = seed, own, rank, world

    def make(self, step: int) -> Batch:
        """The batch of ``step``: a pure function of the run's seed and the step."""
        indices = self._schedule[step]
        weights = self._weights(indices, step)
        share = len(indices) // self._world
        mine = slice(self._rank * share, (self._rank + 1) * share)
        return Batch(
            inputs=self._inputs.batch(indices[mine]),
            targets={t.name: self._targets(t, indices, weights[t.name], mine) for t in self._teachings},
            weights={name: torch.from_numpy(weight) for name, weight in weights.items()},
            domain=torch.from_numpy(self._domain[indices]),
        )

    def _targets(self, teaching: Teaching, indices: Indices, weight: Floats, mine: slice) -> dict[str, Tensor]:
        """Rows of the whole batch, or where this process needs no others, of its share."""
        if teaching.name not in self._own:
            return teaching.targets(indices, weight)
        if teaching.together:
            return {signal: x[mine] for signal, x in teaching.targets(indices, weight).items()}
        return teaching.targets(indices[mine], weight[mine])

    def _weights(self, indices: Indices, step: int) -> dict[str, Floats]:
        weights = {t.name: t.weight[indices] for t in self._teachings}
        if not self._drawn:
            return weights
        able = np.stack([weights[name] > 0 for name in self._drawn])
        draw = np.random.default_rng([self._seed, 2, step]).random(able.shape)
        chosen = np.where(able, draw, -1.0).argmax(axis=0)
        only = {name: np.where(chosen == n, weights[name], np.float32(0)) for n, name in enumerate(self._drawn)}
        return {**weights, **only}

    def run(self, start: int) -> Iterator[tuple[int, Batch]]:
        """(step, batch) from ``start`` to the end of the schedule, one batch ahead of the caller.

        Visits to parked teachers happen here, while the caller waits: no step is under way then.
        """
        parked = [t for t in self._teachings if t.visit is not None]
        length = VISIT_STEPS if parked else max(1, len(self._schedule) - start)
        with ThreadPoolExecutor(1) as ahead:
            for first in range(start, len(self._schedule), length):
                steps = range(first, min(first + length, len(self._schedule)))
                for teaching in parked:
                    self._visit(teaching, steps)
                yield from self._one_ahead(ahead, steps)

    def _visit(self, teaching: Teaching, steps: range) -> None:
        assert teaching.visit is not None
        chosen = [(self._schedule[step], step) for step in steps]
        teaching.visit([teaching.wanted(rows, self._weights(rows, step)[teaching.name]) for rows, step in chosen])

    def _one_ahead(self, ahead: ThreadPoolExecutor, steps: range) -> Iterator[tuple[int, Batch]]:
        coming = ahead.submit(self.make, steps.start)
        for step in steps:
            batch = coming.result()
            if step + 1 in steps:
                coming = ahead.submit(self.make, step + 1)
            yield step, batch
