"""A step that is not finite changes nothing: the run is the one in which the step does not happen, bit for bit."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from kdkit.core.contracts import Silent
from kdkit.core.distill.loop import parallel
from kdkit.core.distill.loop.accelerator import make_accelerator
from kdkit.core.distill.loop.checkpoint import Checkpoints
from kdkit.core.distill.loop.checkpoint_files import Progress
from kdkit.core.distill.loop.finite_steps import READ_EVERY
from kdkit.core.distill.loop.sharding import Sharding
from kdkit.core.distill.loop.train import train
from kdkit.plugins.losses import similarity_tiles
from tests.core.distill.loop.test_sharding import BATCH, SETTINGS, STEPS, Loader, Size, make_task, same
from tests.core.distill.toy_runs import Heard
from tests.errors import raises_error
from tests.ranks import run_ranks

SKIP = replace(SETTINGS, most_skipped=3, checkpoint_seconds=0.0)
WORLD = 2


class Poisoned(Loader):
    """Batches whose last sample has a target that is not a number at some steps, or which lack these steps."""

    def __init__(
        self, bad: Collection[int], *, left_out: bool = False, rank: int = 0, world: int = 1, last: int = STEPS
    ) -> None:
        super().__init__(rank, world, last)
        self._bad, self._left_out = bad, left_out

    def batches(self, start: int) -> Iterator[tuple[int, Any]]:
        for step, batch in super().batches(start):
            if not (self._left_out and step in self._bad):
                names = [f"s{step}-{row}" for row in range(BATCH)]
                yield step, SimpleNamespace(to=batch.to, name_samples=lambda names=names: names)

    def _make(self, step: int) -> dict[str, Any]:
        made = super()._make(step)
        if step in self._bad and self._rank == self._world - 1:
            made["targets"]["a"]["image"][-1, 2] = torch.nan
        return made


class Normalized(nn.Module):
    """A task with batch normalization."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.norm, self.linear = nn.BatchNorm1d(7), nn.Linear(7, 1)

    def forward(self, inputs: Mapping[str, Tensor], targets: Mapping[str, Mapping[str, Tensor]], **_: Any) -> Any:
        x = inputs["image"].float() + 0 * targets["a"]["image"].float().sum()
        return {"loss": self.linear(self.norm(x)).square().mean()}


def trained(
    folder: Path,
    loader: Poisoned,
    task: nn.Module | None = None,
    *,
    settings: Any = SKIP,
    reporter: Any = None,
    sharded: bool = False,
    size: Size = None,
) -> tuple[dict[str, Tensor], Progress]:
    task, accelerator = task or make_task(size), make_accelerator("no", cpu=True)
    progress = train(
        task,
        loader,
        settings,
        accelerator=accelerator,
        checkpoints=Checkpoints(folder),
        reporter=reporter or Silent(),
        sharding=Sharding() if sharded else None,
    )
    accelerator.free_memory()
    return {name: x.detach().clone() for name, x in task.state_dict().items()}, progress


@pytest.fixture(params=["host", "device"])
def judge(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who decides: the host, or the device as on a GPU (the same kernels, on the CPU)."""
    if request.param == "device":
        monkeypatch.setattr(parallel, "MASKED", ("cpu",))
    return str(request.param)


@pytest.mark.parametrize("bad", [{0}, {0, 1}, {3, 5, 6}, {STEPS - 1}], ids=str)
@pytest.mark.usefixtures("judge")
def test_a_skipped_step_changes_nothing(tmp_path: Path, bad: set[int]) -> None:
    """Weights, AdamW's states and the moving average, of which the first counted step is a copy."""
    heard = Heard()
    found, progress = trained(tmp_path / "skipped", Poisoned(bad), reporter=heard)
    expected, _ = trained(tmp_path / "left out", Poisoned(bad, left_out=True))
    assert all(torch.equal(found[name], x) for name, x in expected.items())
    assert progress.skipped == len(bad)
    assert [step["step"] for step in progress.skipped_steps] == sorted(bad)
    assert "targets/a/image" in progress.skipped_steps[0]["found"]
    assert [point["step"] for point in progress.log] == [step for step in range(STEPS) if step not in bad]
    assert f"s{min(bad)}-0" in heard.warnings[0]
    assert "targets/a/image" in heard.warnings[0]


@pytest.mark.usefixtures("judge")
def test_statistics_of_batch_normalization_are_restored(tmp_path: Path) -> None:
    class Inputs(Poisoned):
        def _make(self, step: int) -> dict[str, Any]:
            made = Loader._make(self, step)
            made["inputs"]["image"][0, 0] = torch.inf if step in self._bad else 1.0
            return made

    found, _ = trained(tmp_path / "skipped", Inputs({2}), Normalized())
    expected, _ = trained(tmp_path / "left out", Inputs({2}, left_out=True), Normalized())
    assert all(torch.equal(found[name], x) for name, x in expected.items())
    assert int(found["norm.num_batches_tracked"]) == STEPS - 1


@pytest.mark.parametrize("last", [3, 4, 6])
@pytest.mark.usefixtures("judge")
def test_a_run_continues_over_skipped_steps(tmp_path: Path, last: int) -> None:
    class Interrupting(Silent):
        def progress(self, label: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG002
            if done == last:
                raise InterruptedError

    whole = trained(tmp_path / "whole", Poisoned({3, 4}))
    with pytest.raises(InterruptedError):
        trained(tmp_path / "part", Poisoned({3, 4}), reporter=Interrupting())
    weights, progress = trained(tmp_path / "part", Poisoned({3, 4}))
    assert all(torch.equal(weights[name], x) for name, x in whole[0].items())
    assert replace(progress, seconds=0.0) == replace(whole[1], seconds=0.0)


@pytest.mark.usefixtures("judge")
def test_a_stop_names_teacher_and_sample(tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=450)  # logged at every fourth step
    with raises_error("KD-DIST-017", mentions=("step 5",)) as caught:
        trained(tmp_path, Poisoned({5, 6, 7}, last=12), settings=settings)
    assert "teacher 'a' has image targets that are not finite for s5-7" in caught.value.why
    assert "its 8 samples: s5-0" in caught.value.why
    assert "on_nan: skip" in caught.value.fix


@pytest.mark.usefixtures("judge")
def test_too_many_skipped_steps_in_a_row_end_the_run(tmp_path: Path) -> None:
    with raises_error("KD-DIST-530", mentions=("step 7", "3 in a row")) as caught:
        trained(tmp_path, Poisoned({1, 2, 5, 6, 7}))
    assert "s7-7" in caught.value.why


def test_the_limit_holds_over_a_restart(tmp_path: Path) -> None:
    class Interrupting(Silent):
        def progress(self, label: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG002
            if done == 7:
                raise InterruptedError

    with pytest.raises(InterruptedError):
        trained(tmp_path, Poisoned({4, 5, 6}), reporter=Interrupting(), settings=replace(SKIP, most_skipped=4))
    with raises_error("KD-DIST-530", mentions=("step 6",)):
        trained(tmp_path, Poisoned({4, 5, 6}))


class Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Counts values that the host reads from tensors."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_device_is_read_at_logged_steps_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading makes the host wait. Steps between two logged ones read nothing of the device: the two readings are those
    of the moving average's counter, which torch keeps on the CPU."""
    monkeypatch.setattr(parallel, "MASKED", ("cpu",))
    monkeypatch.setattr(similarity_tiles, "READABLE", ())
    steps, counts, mode = 14, list[int](), Reads()  # type: ignore[no-untyped-call]  # torch's

    class Counting(Loader):
        def batches(self, start: int) -> Iterator[tuple[int, Any]]:
            for step in range(start, steps):
                counts.append(mode.count)
                yield step, SimpleNamespace(to=lambda _, step=step: self._make(step))

    with mode:
        train(
            make_task(None),
            Counting(0, 1),
            replace(SKIP, steps=300, checkpoint_seconds=1e9),  # logged at every third step
            accelerator=Accelerator(cpu=True),
            checkpoints=Checkpoints(tmp_path),
            reporter=Silent(),
        )
    read = [later - before for before, later in pairwise(counts)]
    logged = {step: count for step, count in enumerate(read) if step % 3 == 0}
    assert len(read) == 13
    assert {count for step, count in enumerate(read) if step not in logged} == {2}
    assert min(logged.values()) > 2, logged
    assert READ_EVERY >= 100


def _worker(rank: int, folder: str, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    runs = Path(folder)
    for masked in ("", "cpu"):
        cast(Any, parallel).MASKED = (masked,)
        for sharded in (False, True):
            name = f"{masked}{sharded}"
            loader = Poisoned({0, 3, 4}, rank=rank, world=WORLD)
            weights, progress = trained(runs / name, loader, sharded=sharded, size=3)
            assert progress.skipped == 3
            assert "targets/a/image" in progress.skipped_steps[0]["found"], "the main process knows it from the other"
            torch.save(weights, runs / f"{name}-{rank}")
            with raises_error("KD-DIST-017") as caught:
                stopping = Poisoned({1}, rank=rank, world=WORLD)
                trained(runs / f"{name} stops", stopping, sharded=sharded, settings=replace(SETTINGS, steps=450))
            assert "teacher 'a' has image targets that are not finite for s1-7" in caught.value.why
    dist.barrier()
    dist.destroy_process_group()


def test_all_ranks_leave_out_a_step_that_one_of_them_cannot_compute(tmp_path: Path) -> None:
    """DDP and FSDP2, with micro-batches: the second of two processes has the broken target."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run_ranks(_worker, str(tmp_path), port, world=WORLD)
    expected, _ = trained(tmp_path / "left out", Poisoned({0, 3, 4}, left_out=True))
    for path in sorted(tmp_path.glob("*-[01]")):
        same(torch.load(path, weights_only=True), expected)
    assert len(list(tmp_path.glob("*-[01]"))) == 4 * WORLD
