"""Batches for the task: prepared student inputs and the teachers' targets.

This is not torch's ``DataLoader``, for three reasons. Batches must be a pure function of (seed, step), so a resumed run
continues bit for bit without a saved state. Targets are gathered for a whole batch at once from memory-mapped columns
or from live teachers on a device, which worker processes cannot share. Decoded inputs stay in memory, so after the
first epoch a worker would only copy tensors. One thread prepares the next batch during the current step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from kdkit.core.contracts import CaptionView, Sample, Student
from kdkit.core.data.images import decoding_threads, open_image
from kdkit.core.distill.plan.targets import CaptionTargets, TeacherTargets
from kdkit.core.distill.plan.types import PREVIOUS, Floats, Indices

if TYPE_CHECKING:
    from kdkit.core.data import SampleIndex

GIB = 2**30
PREFETCH_STEPS = 8
"""Steps that an offloaded teacher computes at a time, so that its weights move once for all of them."""


class InputCache:
    """Student inputs, kept in memory up to ``budget`` bytes.

    A sample within the budget is decoded once per run, others each time. There is no augmentation, because the
    teachers' features belong to the plain image.
    """

    def __init__(self, student: Student, index: SampleIndex, *, budget: int = 2 * GIB) -> None:
        self._student, self._index = student, index
        self._budget = self._free = budget
        self._rows: dict[int, Mapping[str, Tensor]] = {}
        self._added: tuple[Sample, ...] = ()
        self._pool = ThreadPoolExecutor(decoding_threads())

    @property
    def samples(self) -> int:
        """Samples of the index."""
        return len(self._index)

    def add(self, samples: Sequence[Sample]) -> int:
        """Number ``samples`` after those of the index, instead of any added before; returns the first number."""
        first = len(self._index)
        for number in [number for number in self._rows if number >= first]:
            self._free += _nbytes(self._rows.pop(number))
        self._added = tuple(samples)
        return first

    def batch(self, indices: Indices) -> dict[str, Tensor]:
        """Stacked inputs (len(indices), ...)."""
        rows = list(self._pool.map(self._row, indices.tolist()))
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def expected_bytes(self, indices: Indices) -> int:
        """Memory for the inputs of ``indices``, at most the budget."""
        return min(self._budget, _nbytes(self._row(int(indices[0]))) * len(indices))

    def _row(self, number: int) -> Mapping[str, Tensor]:
        row = self._rows.get(number)
        if row is None:
            first = len(self._index)
            sample = self._index.samples[number] if number < first else self._added[number - first]
            row = self._student.prepare(open_image(sample), sample)
            size = _nbytes(row)
            if self._free >= size:
                self._free -= size
                self._rows[number] = row
        return row

    def close(self) -> None:
        """Stop the decoding threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _nbytes(row: Mapping[str, Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in row.values())


@dataclass(frozen=True)
class DistillBatch:
    """Arguments of :meth:`kdkit.core.distill.model.task.DistillTask.forward`.

    Attributes:
        inputs: this rank's shard of the student inputs.
        targets: teacher -> signal -> rows of the global batch; of local teachers, of this rank's shard.
        weights: teacher -> (B,) of the global batch.
        domain: (B,) of the global batch; ``captions`` likewise.
        seeds: (b,) int64, one for each sample of the shard, if the run alters its inputs.
    """

    inputs: dict[str, Tensor]
    targets: dict[str, dict[str, Tensor]]
    weights: dict[str, Tensor]
    domain: Tensor
    captions: CaptionView | None = None
    seeds: Tensor | None = None

    def to(self, device: torch.device) -> dict[str, Any]:
        """Keyword arguments of the task's forward, on ``device``."""

        def move(x: Tensor) -> Tensor:
            return x.to(device, non_blocking=True)

        return {
            "inputs": {k: move(v) for k, v in self.inputs.items()},
            "targets": {t: {k: move(v) for k, v in row.items()} for t, row in self.targets.items()},
            "weights": {k: move(v) for k, v in self.weights.items()},
            "domain": move(self.domain),
            "captions": self.captions and CaptionView(move(self.captions.weight), move(self.captions.text)),
            "seeds": self.seeds,
        }


class StepSampler(Protocol):
    """The samples of every step, such as :class:`~kdkit.core.distill.loop.sampler.BatchSampler`."""

    def __len__(self) -> int:
        """One more than the last step."""

    def __getitem__(self, step: int) -> Indices: ...


class DistillDataLoader:
    """Makes the batch of any step, one step ahead of the loop.

    Args:
        sampler: step -> (B,) sample numbers.
        inputs: of the student.
        targets: of all teachers.
        domain: domain of every sample that the sampler may name.
        one_teacher: each sample draws one of its teachers uniformly (MMKD-CLIP's released code). The previous version
            is always active; otherwise samples that are not drawn would be forgotten.
        seed: of these draws.
        captions: of all samples that the sampler may name; None if no loss reads them.
        local_teachers: teachers of which a rank needs the rows of its shard alone (``DistillTask.local_teachers``).
        seeded: give every sample of a batch a seed, by which its inputs are altered.
        rank, world: this process and the number of processes that share each batch.

    Example:
        >>> from types import SimpleNamespace
        >>> inputs = SimpleNamespace(batch=lambda samples: {"pixels": torch.ones(len(samples), 3, 8, 8)})
        >>> features = np.eye(4, dtype=np.float32)
        >>> radio = TeacherTargets(
        ...     "radio", {"image": 4}, np.arange(4), np.ones(4, dtype=np.float32), lambda signal, rows: features[rows]
        ... )
        >>> loader = DistillDataLoader(
        ...     sampler=[np.array([0, 1]), np.array([2, 3])],
        ...     inputs=inputs,
        ...     targets=[radio],
        ...     domain=np.zeros(4, dtype=np.int64),
        ...     one_teacher=False,
        ...     seed=0,
        ... )
        >>> for step, batch in loader.batches(start=1):
        ...     print(step, batch.targets["radio"]["image"].argmax(1).tolist(), tuple(batch.inputs["pixels"].shape))
        1 [2, 3] (2, 3, 8, 8)
    """

    pauses: frozenset[int] = frozenset()
    """Steps before which something slow happens."""

    def __init__(
        self,
        sampler: StepSampler,
        inputs: InputCache,
        targets: Sequence[TeacherTargets],
        domain: Indices,
        *,
        one_teacher: bool,
        seed: int,
        captions: CaptionTargets | None = None,
        local_teachers: Collection[str] = (),
        seeded: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._sampler, self._inputs, self._targets, self._domain = sampler, inputs, targets, domain
        self._captions, self._seeded = captions, seeded
        self._drawn = [teacher.name for teacher in targets if teacher.name != PREVIOUS] if one_teacher else []
        self._seed, self._local_teachers, self._rank, self._world = seed, local_teachers, rank, world

    def batches(self, start: int) -> Iterator[tuple[int, DistillBatch]]:
        """(step, batch) from ``start`` to the last step.

        Offloaded teachers compute here, between two steps, for the next ``PREFETCH_STEPS`` steps.
        """
        offloaded = [teacher for teacher in self._targets if teacher.prefetch is not None]
        length = PREFETCH_STEPS if offloaded else max(1, len(self._sampler) - start)
        with ThreadPoolExecutor(1) as thread:
            for first in range(start, len(self._sampler), length):
                steps = range(first, min(first + length, len(self._sampler)))
                for teacher in offloaded:
                    self._prefetch(teacher, steps)
                upcoming = thread.submit(self.make, steps.start)
                for step in steps:
                    batch = upcoming.result()
                    if step + 1 in steps:
                        upcoming = thread.submit(self.make, step + 1)
                    yield step, batch

    def make(self, step: int) -> DistillBatch:
        """The batch of ``step``: a pure function of the run's seed and the step."""
        indices = self._sampler[step]
        weights = self._weights(indices, step)
        share = len(indices) // self._world
        shard = slice(self._rank * share, (self._rank + 1) * share)
        return DistillBatch(
            inputs=self._inputs.batch(indices[shard]),
            targets={t.name: self._load(t, indices, weights[t.name], shard) for t in self._targets},
            weights={name: torch.from_numpy(weight) for name, weight in weights.items()},
            domain=torch.from_numpy(self._domain[indices]),
            captions=None if self._captions is None else self._captions.load(indices),
            seeds=torch.from_numpy(self._seeds(step, len(indices))[shard]) if self._seeded else None,
        )

    def _seeds(self, step: int, length: int) -> Indices:
        return np.random.default_rng([self._seed, 7, step]).integers(2**62, size=length)

    def _load(self, teacher: TeacherTargets, indices: Indices, weight: Floats, shard: slice) -> dict[str, Tensor]:
        """Rows of the global batch, or of the shard for a local teacher."""
        if teacher.name not in self._local_teachers:
            return teacher.load(indices, weight)
        if teacher.sharded_gather:  # a collective call: every rank requests the rows of the global batch
            return {signal: x[shard] for signal, x in teacher.load(indices, weight).items()}
        return teacher.load(indices[shard], weight[shard])

    def _weights(self, indices: Indices, step: int) -> dict[str, Floats]:
        weights = {teacher.name: teacher.weight[indices] for teacher in self._targets}
        if not self._drawn:
            return weights
        able = np.stack([weights[name] > 0 for name in self._drawn])
        draw = np.random.default_rng([self._seed, 2, step]).random(able.shape)
        chosen = np.where(able, draw, -1.0).argmax(axis=0)
        only = {name: np.where(chosen == n, weights[name], np.float32(0)) for n, name in enumerate(self._drawn)}
        return {**weights, **only}

    def _prefetch(self, teacher: TeacherTargets, steps: range) -> None:
        assert teacher.prefetch is not None
        batches = [(self._sampler[step], step) for step in steps]
        teacher.prefetch([teacher.rows_of(rows, self._weights(rows, step)[teacher.name]) for rows, step in batches])
