"""Checkpoints of several processes: each writes its parts while it trains on, and nothing half written counts.
A launcher's processes train once.

Two processes are started once, for all tests.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor

from kdkit.core.distill.loop import checkpoint_files, shard_writer
from kdkit.core.distill.loop.accelerator import end_process_group, make_accelerator
from kdkit.core.distill.loop.checkpoint import Checkpoints
from kdkit.core.distill.loop.checkpoint_files import file_of
from kdkit.core.distill.loop.checkpoint_state import checkpoint_bytes
from kdkit.core.distill.loop.sharding import Sharding
from tests.core.distill.loop.test_checkpoint import Heard
from tests.core.distill.loop.test_sharding import STEPS, Loader, make_task, same, trained
from tests.errors import raises_error
from tests.ranks import run_ranks

WORLD, BEGUN = 2, 4
SAVED = {"sharded": (2, BEGUN), "whole": (1, 2)}
"""Steps with a checkpoint, the second at the end of a run. Before they save sharded weights, processes agree for a
step."""


class Late(Loader):
    """Batches; that of the last step lets the writing of files begin."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.training = threading.Event()

    def batches(self, start: int) -> Iterator[tuple[int, Any]]:
        for step, batch in super().batches(start):
            if step == self._last - 1:
                self.training.set()
            yield step, batch


class Stopping(Loader):
    """Batches; with the second, the last process gets SIGTERM."""

    def batches(self, start: int) -> Iterator[tuple[int, Any]]:
        for step, batch in super().batches(start):
            if step == 1 and self._rank == self._world - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield step, batch


def write_late(module: Any, loader: Late) -> list[bool]:
    """Makes ``module`` write its first file after the last batch; whether that came while it waited."""
    write, came = module.save_file, list[bool]()

    def wait(*args: Any) -> None:
        came.append(loader.training.wait(120))
        module.save_file = write
        write(*args)

    module.save_file = wait
    return came


def _worker(rank: int, folder: str, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    runs = Path(folder)
    for name, module, sharding in (("sharded", shard_writer, Sharding()), ("whole", checkpoint_files, None)):
        loader = Late(rank, WORLD, SAVED[name][1])
        came = write_late(module, loader) if sharding or rank == 0 else [True]
        trained(runs / name, rank, WORLD, sharding=sharding, loader=loader)
        assert came == [True], "the training waited for the checkpoint"
    dist.barrier()
    if rank == 0:
        shutil.copytree(runs / "sharded", runs / "damaged")
        path = runs / "damaged" / f"step-{BEGUN:08d}" / file_of(1)
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        (runs / "damaged" / ".step-00000009.draft").mkdir()
    dist.barrier()
    heard = Heard()
    continued, _ = trained(runs / "damaged", rank, WORLD, sharding=Sharding(), reporter=heard)
    torch.save(continued, runs / f"continued-{rank}")
    assert len(heard.warnings) == 1
    assert file_of(1) in heard.warnings[0]
    assert "step-00000002" in heard.warnings[0]
    with pytest.raises(KeyboardInterrupt):
        trained(runs / "stopped", rank, WORLD, sharding=Sharding(), loader=Stopping(rank, WORLD), seconds=1e6)
    dist.barrier()
    if rank == 1:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # as a full disk
    with raises_error("KD-DIST-520", mentions=("process 1", "no disk space left")):
        trained(runs / "full", rank, WORLD, sharding=Sharding(), last=BEGUN)
    end_process_group(make_accelerator("no", cpu=True))
    with raises_error("KD-DIST-525"):
        make_accelerator("no", cpu=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of the runs of two processes."""
    import socket

    path = tmp_path_factory.mktemp("runs")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run_ranks(_worker, str(path), port, world=WORLD)
    return path


@pytest.fixture(scope="module")
def alone(runs: Path) -> dict[str, Tensor]:
    return trained(runs / "alone")[0]


def steps_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_each_process_writes_its_parts(runs: Path) -> None:
    (newest,) = (runs / "sharded").glob(f"step-{BEGUN:08d}")
    files = [load_file(newest / file_of(rank)) for rank in range(WORLD)]
    sizes = [sum(x.nbytes for x in file.values()) for file in files]
    whole = checkpoint_bytes(make_task(None), averaged=True)
    assert sum(sizes) == pytest.approx(whole, rel=0.1)
    assert max(sizes) < 0.65 * whole
    assert {path.name for path in newest.iterdir()} == {file_of(0), file_of(1), "progress.json"}


@pytest.mark.parametrize("kind", SAVED)
def test_what_is_written_while_the_training_goes_on_is_that_of_its_step(
    kind: str, runs: Path, alone: dict[str, Tensor], tmp_path: Path
) -> None:
    """The first checkpoint is kept beside the last; one process continues it."""
    shutil.copytree(runs / kind, tmp_path / "run")
    first, last = (f"step-{step:08d}" for step in SAVED[kind])
    shutil.rmtree(tmp_path / "run" / last)
    assert steps_in(tmp_path / "run") == [first]
    same(trained(tmp_path / "run")[0], alone)


def test_a_damaged_part_leads_to_the_checkpoint_before(runs: Path, alone: dict[str, Tensor]) -> None:
    """On all processes, and of a checkpoint that a killed run began, nothing is left."""
    for rank in range(WORLD):
        same(torch.load(runs / f"continued-{rank}", weights_only=True), alone)
    assert steps_in(runs / "damaged") == [f"step-{step:08d}" for step in (STEPS - 2, STEPS)]


def test_a_signal_leaves_a_whole_checkpoint_that_one_process_continues(runs: Path, alone: dict[str, Tensor]) -> None:
    (name,) = steps_in(runs / "stopped")
    assert name < f"step-{STEPS:08d}"
    same(trained(runs / "stopped")[0], alone)


def test_a_checkpoint_of_two_processes_without_the_file_of_one(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "sharded", tmp_path / "run")
    for path in (tmp_path / "run").rglob(file_of(1)):
        path.unlink()
    with raises_error("KD-DIST-015", mentions=(file_of(1), "2 files")):
        trained(tmp_path / "run")


def test_no_checkpoint_without_the_parts_of_all(runs: Path) -> None:
    assert not list((runs / "full").glob("step-*"))


def test_a_part_of_another_run_is_no_part(runs: Path, tmp_path: Path) -> None:
    """Readable, and of the right shapes; but not what the checkpoint was written with."""
    shutil.copytree(runs / "sharded", tmp_path / "run")
    newest, before = sorted((tmp_path / "run").iterdir())[::-1]
    shutil.copy(before / file_of(1), newest / file_of(1))
    _, progress = trained(tmp_path / "run", reporter=(told := Heard()))
    assert progress.step == STEPS
    assert "checksum" in told.warnings[0]


def test_a_checkpoint_names_the_tensor_that_another_task_lacks(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "sharded", tmp_path / "run")
    task = torch.nn.Linear(2, 2)
    with raises_error("KD-DIST-015", mentions=("is unexpected",)):
        Checkpoints(tmp_path / "run").restore(task, torch.optim.AdamW(task.parameters()))
