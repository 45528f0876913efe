"""One teacher that is asked while training: its rows, its passes, where its weights are, and its share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from kdkit.core.contracts import SignalSpec
from kdkit.core.data.index import SampleIndex
from kdkit.core.distill.loop.dataloader import DistillDataLoader
from kdkit.core.distill.loop.inputs import InputCache
from kdkit.core.distill.loop.live_teacher import MICRO_BATCH, LiveTeacher
from kdkit.core.distill.loop.sampler import BatchSampler
from kdkit.core.distill.model.build import target_chunks
from kdkit.core.distill.model.target_norm import TargetNorm, fit_norms
from kdkit.core.distill.plan.targets import TeacherTargets
from kdkit.core.distill.plan.types import SamplePool
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.extraction import extract
from kdkit.core.project.recipe import Normalize
from kdkit.core.teachers.open import OpenTeacher
from tests.core.features.small import index_of, open_as, picture_samples
from tests.ranks import run_ranks
from tests.toys import ToyEncoder


class Watched(nn.Module):
    """A signal source that notes what it is asked, and where its weights are then."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 5)
        self.register_buffer("scale", torch.full((1,), 2.0))
        self.asked: list[int] = []
        self.places: set[int] = set()

    signals = (SignalSpec("image", (5,)), SignalSpec("ids", (2,), "int32"))

    def identity(self) -> Mapping[str, str]:
        return {}

    def prepare(self, image: Any, sample: Any) -> Tensor:  # noqa: ARG002  # the protocol's
        return torch.from_numpy(np.asarray(image.convert("L").resize((8, 1)), dtype=np.float32)[0] / 255)

    def compute(self, items: Sequence[Tensor]) -> Mapping[str, Tensor]:
        self.asked.append(len(items))
        self.places = {x.data_ptr() for x in (*self.parameters(), *self.buffers())}
        x = torch.stack(list(items))
        shown = x[:, :5] * self.layer.weight[:, 0]
        assert not shown.requires_grad
        return {"image": shown, "ids": (1000 * x[:, :2]).long()}


class Failing:
    """The same, until it has been asked about so many samples."""

    def __init__(self, source: Watched, until: int) -> None:
        self.signals, self.identity, self.prepare = source.signals, source.identity, source.prepare
        self.source, self.until = source, until

    def compute(self, items: Sequence[Tensor]) -> Mapping[str, Tensor]:
        if sum(self.source.asked) >= self.until:
            raise RuntimeError("killed")
        return self.source.compute(items)


def watched(folder: Path, count: int = 40, **options: Any) -> tuple[LiveTeacher, Watched, SampleIndex, OpenTeacher]:
    table = index_of(picture_samples(folder, count), folder)
    torch.manual_seed(0)
    source = Watched()
    opened = open_as("t", source)
    live = LiveTeacher(opened, table, np.zeros(count, bool), **{"device": torch.device("cpu"), **options})
    return live, source, table, opened


def test_all_signals_of_a_batch_cost_one_pass_and_are_what_the_store_holds(tmp_path: Path) -> None:
    live, source, table, opened = watched(tmp_path)
    rows = np.random.default_rng(0).permutation(40).astype(np.int64)
    rows = np.concatenate([rows, rows[:3]])
    found = {spec.name: live.gather(spec.name, rows) for spec in source.signals}
    assert source.asked == [MICRO_BATCH, MICRO_BATCH, 43 - 2 * MICRO_BATCH]
    extract(FeatureStore(tmp_path / "features"), [opened], table)
    column = FeatureStore(tmp_path / "features").column("t")
    for spec in source.signals:
        stored = column.gather(spec.name, column.locate(table)[rows])
        assert found[spec.name].dtype == stored.dtype
        assert np.array_equal(found[spec.name], stored), spec.name


def test_an_interrupted_extraction_is_not_completed_for_a_live_teacher(tmp_path: Path) -> None:
    _, source, table, opened = watched(tmp_path)
    store, half = FeatureStore(tmp_path), open_as("t", Failing(source, 16))
    with pytest.raises(RuntimeError, match="killed"):
        extract(store, [half], table, batch_size=8, block_rows=8)
    source.asked.clear()
    (report,) = extract(store, [opened], table, live={"t": "cpu"}, batch_size=8, block_rows=8)
    assert (report.new, report.kept, source.asked) == (0, 16, [])
    (report,) = extract(store, [opened], table, batch_size=8, block_rows=8)
    assert (report.new, report.kept, source.asked) == (24, 16, [8, 8, 8])


def test_a_parked_teacher_is_on_its_device_only_while_it_computes(tmp_path: Path) -> None:
    live, source, _, _ = watched(tmp_path, device=torch.device("cpu:0"), offload=True)  # other memory than "cpu"
    before = {name: x.clone() for name, x in source.state_dict().items()}
    home = {x.data_ptr() for x in (*source.parameters(), *source.buffers())}
    batches = [np.arange(5), np.arange(5, 9), np.arange(0)]
    live.prefetch(batches)
    assert len(source.places) == len(home) == 3
    assert not source.places & home
    assert {x.data_ptr() for x in (*source.parameters(), *source.buffers())} == home
    assert all(torch.equal(x, before[name]) for name, x in source.state_dict().items())
    asked = len(source.asked)
    assert [len(live.gather("image", rows)) for rows in batches] == [5, 4, 0]
    assert len(source.asked) == asked, "what was computed ahead is not computed again"


def test_teachers_are_asked_about_what_they_teach_alone(tmp_path: Path) -> None:
    teachers = [watched(tmp_path / str(n)) for n in range(2)]
    table = teachers[0][2]
    teachings = [
        TeacherTargets(str(n), {"image": 5}, live.rows, np.ones(40, np.float32), live.gather, (source.signals[1],))
        for n, (live, source, _, _) in enumerate(teachers)
    ]
    schedule = BatchSampler([SamplePool(np.arange(40), table.domain_index)], batch_size=20, steps=3, seed=0)
    inputs = InputCache(ToyEncoder(), table)
    feed = DistillDataLoader(schedule, inputs, teachings, table.domain_index, one_teacher=True, seed=0)
    batches = [batch for _, batch in feed.batches(0)]
    inputs.close()
    assert [sum(sum(source.asked) for _, source, _, _ in teachers)] == [3 * 20]
    for batch in batches:
        for name, rows in batch.targets.items():
            silent = batch.weights[name] == 0
            assert bool((rows["image"][silent] == 0).all())
            assert bool((rows["image"][~silent] != 0).any(dim=1).all())


@pytest.mark.parametrize(("kind", "asked"), [("standardize", 40), ("phi-s", 40), ("unit", 0), ("none", 0)])
def test_targets_are_fitted_in_one_pass_for_all_signals(
    tmp_path: Path, kind: Normalize, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdkit.core.distill.model.build.ROWS", 16)
    live, source, _, _ = watched(tmp_path)
    teaching = TeacherTargets("t", {"image": 5, "ids": 2}, live.rows, np.ones(40, np.float32), live.gather)
    norms = {signal: TargetNorm(width, kind) for signal, width in teaching.widths.items()}
    fit_norms(norms, target_chunks(teaching, np.arange(40)))
    assert sum(source.asked) == asked
    if asked:
        for signal, norm in norms.items():
            expected = live.gather(signal, np.arange(40)).astype(np.float64).mean(axis=0)
            np.testing.assert_allclose(norm.get_buffer("mean"), expected, rtol=1e-5)


def _worker(rank: int, world: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/barrier", rank=rank, world_size=world)
    torch.set_num_threads(1)
    live, source, _, _ = watched(Path(folder) / str(rank))
    live.join_process_group()
    rows = np.arange(7)
    found = {name: live.gather(name, rows).tolist() for name in ("image", "ids")}
    empty = live.gather("image", rows[:1]).shape
    (Path(folder) / f"{rank}.json").write_text(json.dumps([found, source.asked, empty]), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def test_processes_share_the_work(tmp_path: Path) -> None:
    run_ranks(_worker, 2, str(tmp_path), world=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2))
    live, _, _, _ = watched(tmp_path / "alone")
    alone = {name: live.gather(name, np.arange(7)).tolist() for name in ("image", "ids")}
    assert first[0] == second[0] == alone
    assert (first[1], second[1]) == ([4, 1], [3])
    assert first[2] == second[2] == [1, 5]
