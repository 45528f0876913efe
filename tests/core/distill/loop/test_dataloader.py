"""What a process is fed with: its share of the inputs, the teachers' rows that it needs, and who speaks of a sample."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdkit.core.distill.loop.dataloader import DistillBatch, DistillDataLoader, InputCache
from kdkit.core.distill.loop.sampler import BatchSampler
from kdkit.core.distill.plan.targets import TeacherTargets
from kdkit.core.distill.plan.types import PREVIOUS, Indices, SamplePool
from tests.core.features.small import index_of, picture_samples
from tests.toys import ToyEncoder

COUNT, BATCH, STEPS = 24, 12, 6
KNOWN = 10
"""Samples that the previous version speaks of."""


class Asked:
    """Teachers of all samples and the previous version of some, and which rows each of them is asked for."""

    def __init__(self, folder: Path, *, together: bool = False) -> None:
        self.rows: dict[str, list[int]] = {}
        self.table = index_of(picture_samples(folder, COUNT), folder)
        self.inputs = InputCache(ToyEncoder(), self.table)
        self.teachings = [self.teaching(name, np.ones(COUNT), together) for name in ("a", "b")]
        self.teachings.append(self.teaching(PREVIOUS, np.arange(COUNT) < KNOWN, together=False))

    def teaching(self, name: str, weight: Any, together: bool) -> TeacherTargets:
        def gather(signal: str, rows: Indices) -> np.ndarray[Any, Any]:
            assert signal == "image"
            self.rows.setdefault(name, []).extend(rows.tolist())
            return np.stack([rows + 1.0] * 3, axis=1)

        return TeacherTargets(
            name, {"image": 3}, np.arange(COUNT), weight.astype(np.float32), gather, sharded_gather=together
        )

    def batches(
        self, *, one: bool = False, own: Collection[str] = (), rank: int = 0, world: int = 1
    ) -> list[DistillBatch]:
        self.rows.clear()
        pool = SamplePool(np.arange(COUNT), self.table.domain_index)
        schedule = BatchSampler([pool], batch_size=BATCH, steps=STEPS, seed=3)
        domain = self.table.domain_index
        feed = DistillDataLoader(
            schedule,
            self.inputs,
            self.teachings,
            domain,
            one_teacher=one,
            seed=3,
            local_teachers=own,
            rank=rank,
            world=world,
        )
        return [batch for _, batch in feed.batches(0)]


def test_one_teacher_is_drawn_for_each_sample_and_the_previous_version_speaks_beside_it(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    for one, all_ in zip(asked.batches(one=True), asked.batches(), strict=True):
        assert torch.equal(one.weights["a"] + one.weights["b"], torch.ones(BATCH))
        assert torch.equal(one.weights[PREVIOUS], all_.weights[PREVIOUS])
        assert torch.equal(one.targets[PREVIOUS]["image"], all_.targets[PREVIOUS]["image"])
        assert 0 < one.weights[PREVIOUS].sum() < BATCH
        assert all(0 < one.weights[name].sum() < BATCH for name in ("a", "b"))


@pytest.mark.parametrize("one", [False, True])
@pytest.mark.parametrize("together", [False, True], ids=["stored", "live"])
def test_processes_take_the_rows_of_their_share_where_they_need_no_others(
    tmp_path: Path, together: bool, one: bool
) -> None:
    asked = Asked(tmp_path, together=together)
    whole = asked.batches(one=one)
    everything = {name: sorted(rows) for name, rows in asked.rows.items()}
    read: dict[str, list[int]] = {"a": [], "b": [], PREVIOUS: []}
    for rank in range(2):
        part = slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)
        for mine, batch in zip(asked.batches(one=one, own={"a", PREVIOUS}, rank=rank, world=2), whole, strict=True):
            for name in ("a", PREVIOUS):
                assert torch.equal(mine.targets[name]["image"], batch.targets[name]["image"][part])
            assert torch.equal(mine.targets["b"]["image"], batch.targets["b"]["image"])
            assert all(torch.equal(mine.weights[name], weight) for name, weight in batch.weights.items())
        for name, rows in asked.rows.items():
            read[name] += rows
    times = {"a": 2 if together else 1, "b": 2, PREVIOUS: 1}  # what is computed together, all must ask for
    assert {name: sorted(rows) for name, rows in read.items()} == {
        name: sorted(rows * times[name]) for name, rows in everything.items()
    }
