"""Batches of a rank: its shard of the inputs, the teachers' rows that it needs, and the teachers of each sample."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdkit.core.distill.loop.dataloader import DistillBatch, DistillDataLoader
from kdkit.core.distill.loop.inputs import InputCache
from kdkit.core.distill.loop.sampler import BatchSampler
from kdkit.core.distill.plan.targets import TeacherTargets
from kdkit.core.distill.plan.types import PREVIOUS, Indices, SamplePool
from tests.core.features.small import index_of, picture_samples
from tests.toys import ToyEncoder

COUNT, BATCH, STEPS = 24, 12, 6
KNOWN = 10
"""Samples that the previous version teaches."""


class Recording:
    """Two teachers of all samples, the previous version of some; records which rows are gathered."""

    def __init__(self, folder: Path, *, sharded: bool = False) -> None:
        self.rows: dict[str, list[int]] = {}
        self.table = index_of(picture_samples(folder, COUNT), folder)
        self.inputs = InputCache(ToyEncoder(), self.table)
        self.targets = [self.teacher(name, np.ones(COUNT), sharded) for name in ("a", "b")]
        self.targets.append(self.teacher(PREVIOUS, np.arange(COUNT) < KNOWN, sharded=False))

    def teacher(self, name: str, weight: Any, sharded: bool) -> TeacherTargets:
        def gather(signal: str, rows: Indices) -> np.ndarray[Any, Any]:
            assert signal == "image"
            self.rows.setdefault(name, []).extend(rows.tolist())
            return np.stack([rows + 1.0] * 3, axis=1)

        return TeacherTargets(
            name, {"image": 3}, np.arange(COUNT), weight.astype(np.float32), gather, sharded_gather=sharded
        )

    def batches(self, *, one: bool = False, rank: int = 0, world: int = 1) -> list[DistillBatch]:
        self.rows.clear()
        pool = SamplePool(np.arange(COUNT), self.table.domain_index)
        schedule = BatchSampler([pool], batch_size=BATCH, steps=STEPS, seed=3)
        domain = self.table.domain_index
        feed = DistillDataLoader(
            schedule,
            self.inputs,
            self.targets,
            domain,
            one_teacher=one,
            seed=3,
            rank=rank,
            world=world,
        )
        return [batch for _, batch in feed.batches(0)]


def test_one_teacher_is_drawn_per_sample_and_the_previous_version_stays_active(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    for one, all_ in zip(recording.batches(one=True), recording.batches(), strict=True):
        assert torch.equal(one.weights["a"] + one.weights["b"], torch.ones(BATCH))
        assert torch.equal(one.weights[PREVIOUS], all_.weights[PREVIOUS])
        assert torch.equal(one.targets[PREVIOUS]["image"], all_.targets[PREVIOUS]["image"])
        assert 0 < one.weights[PREVIOUS].sum() < BATCH
        assert all(0 < one.weights[name].sum() < BATCH for name in ("a", "b"))


@pytest.mark.parametrize("one", [False, True])
@pytest.mark.parametrize("sharded", [False, True], ids=["stored", "live"])
def test_ranks_gather_only_their_shard(tmp_path: Path, sharded: bool, one: bool) -> None:
    recording = Recording(tmp_path, sharded=sharded)
    whole = recording.batches(one=one)
    everything = {name: sorted(rows) for name, rows in recording.rows.items()}
    read: dict[str, list[int]] = {"a": [], "b": [], PREVIOUS: []}
    for rank in range(2):
        part = slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)
        for mine, batch in zip(recording.batches(one=one, rank=rank, world=2), whole, strict=True):
            for name in read:
                assert torch.equal(mine.targets[name]["image"], batch.targets[name]["image"][part])
            assert all(torch.equal(mine.weights[name], weight) for name, weight in batch.weights.items())
        for name, rows in recording.rows.items():
            read[name] += rows
    live = 2 if sharded else 1  # a sharded gather needs the same request on every rank
    times = {"a": live, "b": live, PREVIOUS: 1}
    assert {name: sorted(rows) for name, rows in read.items()} == {
        name: sorted(rows * times[name]) for name, rows in everything.items()
    }


def test_what_names_the_samples_does_not_keep_the_batch(tmp_path: Path) -> None:
    """Steps wait for a reading of the device with their names, up to a hundred of them."""
    first, *_ = Recording(tmp_path).batches()
    named, tensors = first.name_samples, [weakref.ref(x) for x in (*first.inputs.values(), *first.weights.values())]
    del first, _
    gc.collect()
    assert not [alive for alive in tensors if alive() is not None]
    assert len(named()) == BATCH
