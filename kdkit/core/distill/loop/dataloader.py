"""Batches for the task: prepared student inputs and the teachers' targets.

This is not torch's ``DataLoader``, for three reasons. Batches must be a pure function of (seed, step), so a resumed run
continues bit for bit without a saved state. Targets are gathered for a whole batch at once from memory-mapped columns
or from live teachers on a device, which worker processes cannot share. Decoded inputs stay in memory, so after the
first epoch a worker would only copy tensors. One thread prepares the next batch during the current step, and images of
the batch after it are decoded meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from kdkit.core.contracts import CaptionView
from kdkit.core.distill.loop.inputs import InputCache, InputRows
from kdkit.core.distill.loop.random_views import PLAIN
from kdkit.core.distill.on_policy.rows import OwnRows
from kdkit.core.distill.plan.targets import CaptionTargets, TeacherTargets
from kdkit.core.distill.plan.types import PREVIOUS, Floats, Indices

PREFETCH_STEPS = 8
"""Steps that an offloaded teacher computes at a time, so that its weights move once for all of them."""


@dataclass(frozen=True)
class DistillBatch:
    """Arguments of :meth:`kdkit.core.distill.model.task.DistillTask.forward`.

    Attributes:
        inputs: this rank's shard of the student inputs.
        targets: teacher -> signal -> rows of this rank's shard.
        weights: teacher -> (B,) of the global batch.
        domain: (B,) of the global batch; ``captions`` likewise.
        seeds: (b,) int64, one for each sample of the shard, if the run alters its inputs.
        own: (b,) bool, samples of the shard with an answer of the student's own; None in a run without them.
        name_samples: gives the ids of the global batch's samples, in its order; none where the loader has none. It
            holds no tensor of the batch.
    """

    inputs: dict[str, Tensor]
    targets: dict[str, dict[str, Tensor]]
    weights: dict[str, Tensor]
    domain: Tensor
    captions: CaptionView | None = None
    seeds: Tensor | None = None
    own: Tensor | None = None
    name_samples: Callable[[], list[str]] = field(default=list, compare=False)

    def to(self, device: torch.device) -> dict[str, Any]:
        """Keyword arguments of the task's forward, on ``device``."""

        moved = self._map(lambda x: x.to(device, non_blocking=True))
        return {part.name: getattr(moved, part.name) for part in fields(moved) if part.compare}

    def pin_memory(self) -> DistillBatch:
        """The same batch in page-locked memory, from which a GPU copies while it computes."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> DistillBatch:
        """Seeds stay on the CPU, where they are read."""
        captions = self.captions
        return DistillBatch(
            inputs={k: change(v) for k, v in self.inputs.items()},
            targets={t: {k: change(v) for k, v in row.items()} for t, row in self.targets.items()},
            weights={k: change(v) for k, v in self.weights.items()},
            domain=change(self.domain),
            captions=captions and CaptionView(change(captions.weight), change(captions.text)),
            seeds=self.seeds,
            own=None if self.own is None else change(self.own),
            name_samples=self.name_samples,
        )


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
        seeded: give every sample of a batch a seed, by which its inputs are altered.
        rank, world: this process and the number of processes that share each batch.
        pinned: put batches into page-locked memory, for a GPU.
        augmented: samples that no teacher covers get random views.
        own_rows: samples that are to have the student's own answers; teachers have weight 0 there, until
            :class:`~kdkit.core.distill.on_policy.loader.OnPolicyDataLoader` gives them the answers.

    Example:
        >>> from types import SimpleNamespace
        >>> inputs = SimpleNamespace(batch=lambda rows, *_: {"pixels": torch.ones(len(rows), 3, 8, 8)})
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
        seeded: bool = False,
        rank: int = 0,
        world: int = 1,
        pinned: bool = False,
        augmented: bool = False,
        own_rows: OwnRows | None = None,
    ) -> None:
        self._sampler, self._inputs, self._targets, self._domain = sampler, inputs, targets, domain
        self._captions, self._seeded = captions, seeded
        self._drawn = [teacher.name for teacher in targets if teacher.name != PREVIOUS] if one_teacher else []
        self._seed, self._rank, self._world = seed, rank, world
        self._pinned, self._augmented, self._own_rows = pinned, augmented, own_rows

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
        shard = self._shard(indices)
        rows, upcoming = self._rows(step), self._rows(step + 1) if step + 1 < len(self._sampler) else None
        batch = DistillBatch(
            inputs=self._inputs.batch(rows.indices, rows.views, upcoming),
            targets={t.name: self._load(t, indices, weights[t.name], shard) for t in self._targets},
            weights={name: torch.from_numpy(weight) for name, weight in weights.items()},
            domain=torch.from_numpy(self._domain[indices]),
            captions=None if self._captions is None else self._captions.load(indices),
            seeds=torch.from_numpy(self._seeds(step, len(indices))[shard]) if self._seeded else None,
            name_samples=lambda: self._inputs.ids(indices),
        )
        return batch.pin_memory() if self._pinned else batch

    def own(self, step: int) -> tuple[Indices, dict[str, Floats]]:
        """This rank's shard of a step: (b,) rows of the index, and teacher -> (b,) weight for own answers, else 0."""
        indices = self._sampler[step]
        shard = self._shard(indices)
        assert self._own_rows is not None
        _, own = self._own_rows.split({teacher.name: teacher.weight[indices] for teacher in self._targets}, step)
        return indices[shard], {name: weight[shard] for name, weight in self._drawn_teachers(own, step).items()}

    def _rows(self, step: int) -> InputRows:
        """What this rank needs of the student's inputs."""
        indices = self._sampler[step]
        shard = self._shard(indices)
        if not self._augmented:
            return InputRows(indices[shard])
        views = np.random.default_rng([self._seed, 8, step]).integers(2**62, size=len(indices))
        covered = np.zeros(len(indices), dtype=bool)
        for weight in self._weights(indices, step).values():
            covered |= weight > 0
        return InputRows(indices[shard], np.where(covered, PLAIN, views)[shard])

    def _shard(self, indices: Indices) -> slice:
        """Places of this rank."""
        share = len(indices) // self._world
        return slice(self._rank * share, (self._rank + 1) * share)

    def _seeds(self, step: int, length: int) -> Indices:
        return np.random.default_rng([self._seed, 7, step]).integers(2**62, size=length)

    def _load(self, teacher: TeacherTargets, indices: Indices, weight: Floats, shard: slice) -> dict[str, Tensor]:
        """Rows of the shard."""
        if teacher.sharded_gather:  # a collective call: every rank requests the rows of the global batch
            return {signal: x[shard] for signal, x in teacher.load(indices, weight).items()}
        return teacher.load(indices[shard], weight[shard])

    def _weights(self, indices: Indices, step: int) -> dict[str, Floats]:
        """Of the teachers for given answers."""
        weights = {teacher.name: teacher.weight[indices] for teacher in self._targets}
        if self._own_rows is not None:
            weights, _ = self._own_rows.split(weights, step)
        return self._drawn_teachers(weights, step)

    def _drawn_teachers(self, weights: dict[str, Floats], step: int) -> dict[str, Floats]:
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
