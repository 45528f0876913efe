"""FSDP2 and HSDP: four processes with parts of the weights train the student of one, and either continues the other's
run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, TypeAlias, cast

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from kdkit.core.contracts import Reporter, Silent
from kdkit.core.distill.loop.accelerator import make_accelerator
from kdkit.core.distill.loop.checkpoint import Checkpoints
from kdkit.core.distill.loop.checkpoint_files import Progress
from kdkit.core.distill.loop.parallel import Training
from kdkit.core.distill.loop.sharding import Sharding, blocks, shard
from kdkit.core.distill.loop.train import train
from kdkit.core.distill.model.micro_batches import MicroBatches
from kdkit.core.distill.model.projection import TeacherProjection, make_heads
from kdkit.core.distill.model.task import DistillTask, Term
from kdkit.core.distill.plan.types import TrainSettings
from kdkit.plugins.losses.clip import ClipLoss
from kdkit.plugins.losses.fd import FeatureDistillation
from kdkit.plugins.losses.icl import InteractiveContrast
from tests.errors import raises_error
from tests.ranks import run_ranks

WORLD, BATCH, STEPS, BEGUN = 4, 8, 8, 3
GROUPS = {1: "fsdp2", 2: "hsdp 2x2"}
"""Groups that have all weights each, and what the lineage says of them."""
RARE = 1e6
"""Seconds between checkpoints of runs that are not stopped."""
Size: TypeAlias = int | Literal["auto"] | None
SETTINGS = TrainSettings(
    steps=STEPS,
    lr=1e-2,
    weight_decay=0.1,
    betas=(0.9, 0.98),
    warmup=0.1,
    schedule="cosine",
    clip_norm=0.05,
    seed=0,
    ema=0.5,
)


class Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.linear(self.norm(x))).tanh()


class Towers(nn.Module):
    """A dual encoder of layers; 7 does not divide by two, and the last layer trains nothing."""

    outputs: Mapping[str, int] = {"image": 7, "text": 7}

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.ModuleList([Layer(7) for _ in range(3)])
        self.text = nn.Linear(5, 7)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.frozen = nn.Linear(7, 7).requires_grad_(False)
        self.unused = nn.Linear(3, 3)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x = inputs["image"]
        for layer in self.image:
            x = layer(x)
        text = self.text(inputs["text"])
        return {"image": self.frozen(x), "text": text, "logit_scale": self.logit_scale.exp()}


def make_task(size: Size) -> DistillTask:
    torch.manual_seed(0)
    student = Towers()
    heads = make_heads(student.outputs, {"image": 9, "text": 9}, shared_towers=False)
    idle = make_heads(student.outputs, {"image": 4}, shared_towers=False)
    terms = [
        Term("clip", 1.0, ClipLoss(), by_rows=True),
        Term("icl", 1.0, InteractiveContrast(), by_rows=True),
        Term("fd", 1.0, FeatureDistillation(), per_sample=True),
    ]
    projections = {"a": TeacherProjection(heads), "b": TeacherProjection(idle)}
    task = DistillTask(student, projections, terms, micro_batches=MicroBatches(size))
    return task.double()


class Loader:
    """The batches of one process."""

    pauses: frozenset[int] = frozenset()

    def __init__(self, rank: int, world: int, last: int = STEPS) -> None:
        self._rank, self._world, self._last = rank, world, last

    def batches(self, start: int) -> Iterator[tuple[int, Any]]:
        for step in range(start, self._last):
            yield step, SimpleNamespace(to=lambda _, step=step: self._make(step))

    def _make(self, step: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(step)
        own = slice(self._rank * BATCH // self._world, (self._rank + 1) * BATCH // self._world)

        def rows(width: int) -> Tensor:
            return torch.randn(BATCH, width, generator=generator, dtype=torch.float64)[own]

        weight = torch.rand(BATCH, generator=generator, dtype=torch.float64)
        rare = weight * (torch.arange(BATCH) < 2)
        return {
            "inputs": {"image": rows(7), "text": rows(5)},
            "targets": {"a": {"image": rows(9), "text": rows(9)}, "b": {"image": rows(4)}},
            "weights": {"a": weight, "b": rare},
            "domain": torch.zeros(BATCH, dtype=torch.int64),
        }


def trained(
    folder: Path,
    rank: int = 0,
    world: int = 1,
    *,
    size: Size = None,
    last: int = STEPS,
    sharding: Sharding | None = None,
    loader: Loader | None = None,
    reporter: Reporter | None = None,
    seconds: float = 0.0,
) -> tuple[dict[str, Tensor], Progress]:
    task, accelerator = make_task(size), make_accelerator("no", cpu=True)
    progress = train(
        task,
        loader or Loader(rank, world, last),
        replace(SETTINGS, checkpoint_seconds=seconds),
        accelerator=accelerator,
        checkpoints=Checkpoints(folder),
        reporter=reporter or Silent(),
        sharding=sharding,
    )
    accelerator.free_memory()
    return {name: x.detach().clone() for name, x in task.state_dict().items()}, progress


def _worker(rank: int, folder: str, port: int) -> None:
    torch.set_num_threads(1)
    import os

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    runs = Path(folder)
    for groups in GROUPS:
        whole, progress = trained(
            runs / f"sharded {groups}", rank, WORLD, sharding=Sharding(groups), size=1, seconds=RARE
        )
        assert progress.strategy == GROUPS[groups]
        torch.save(whole, runs / f"weights-{groups}-{rank}")
    continued, _ = trained(runs / "begun by one", rank, WORLD, sharding=Sharding(2), size="auto", seconds=RARE)
    torch.save(continued, runs / f"continued-{rank}")
    training = Training(make_task(None), SETTINGS, Accelerator(cpu=True), Sharding())
    parts = {name: p for name, p in training.task.named_parameters() if p.ndim}
    assert all(isinstance(p, DTensor) and cast(Any, p).to_local().numel() < p.numel() for p in parts.values())
    trained(runs / "begun by four", rank, WORLD, sharding=Sharding(), last=BEGUN)
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the runs, some by one process and some by two."""
    import socket

    path = tmp_path_factory.mktemp("runs")
    trained(path / "begun by one", last=BEGUN)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run_ranks(_worker, str(path), port, world=WORLD)
    return path


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Tensor]:
    return trained(folder / "alone")[0]


def same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        torch.testing.assert_close(found[name], x, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("groups", GROUPS)
def test_sharded_weights_train_the_student_of_one(groups: int, folder: Path, alone: dict[str, Tensor]) -> None:
    """With clipped gradients, a moving average, micro-batches, and a teacher without a sample on one of them."""
    for rank in range(WORLD):
        same(torch.load(folder / f"weights-{groups}-{rank}", weights_only=True), alone)


def test_a_run_continues_on_another_number_of_processes(folder: Path, alone: dict[str, Tensor]) -> None:
    for rank in range(WORLD):
        same(torch.load(folder / f"continued-{rank}", weights_only=True), alone)
    same(trained(folder / "begun by four")[0], alone)


def test_blocks_are_what_repeats() -> None:
    assert len(list(blocks(make_task(None)))) == 3


def test_quantized_weights_are_refused_before_any_process_waits() -> None:
    layer = nn.Linear(2, 2)
    packed = nn.Parameter(torch.zeros(2, dtype=torch.uint8), requires_grad=False)
    layer.register_parameter("packed", packed)
    with raises_error("KD-DIST-597", mentions=("0.packed",)):
        shard(nn.Sequential(layer), torch.device("cpu"), Sharding())
