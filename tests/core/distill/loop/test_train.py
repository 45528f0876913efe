"""Runs that are interrupted end with the same weights as uninterrupted ones."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import Silent
from kdkit.core.distill.loop.checkpoint import Checkpoints
from kdkit.core.distill.loop.checkpoint_files import file_of
from kdkit.core.distill.loop.train import train
from kdkit.core.distill.model.projection import TeacherProjection
from kdkit.core.distill.model.task import DistillTask, Term
from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.project.versions import Versions
from kdkit.plugins.losses.fd import FeatureDistillation
from tests.conftest import start_module
from tests.core.distill.loop.test_sharding import Loader
from tests.core.distill.model.test_task import SETTINGS
from tests.core.distill.toy_runs import Heard, assert_equal, recipe, run, weights
from tests.errors import raises_error
from tests.toy_project import open_project


class Stopped(Silent):
    """A reporter that stops a run after a step."""

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG002  # the protocol's
        if label == "distill" and done == 30:
            raise InterruptedError


class Huge(nn.Module):
    """It needs a petabyte at step 1."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.ones(2))

    def forward(self, length: int) -> dict[str, Tensor]:
        return {"loss": (self.x.sum() * torch.ones(length)).sum()}


class Lengths:
    pauses: frozenset[int] = frozenset()

    def batches(self, start: int) -> Iterator[tuple[int, Any]]:
        for step in range(start, 2):
            yield step, SimpleNamespace(to=lambda _, step=step: {"length": 2 if step == 0 else 2**50})


def test_no_memory_left_names_the_step_and_the_key(tmp_path: Path) -> None:
    with raises_error("KD-DIST-271", mentions=("step 1",), code=ExitCode.MISSING) as caught:
        train(
            Huge(),
            Lengths(),
            SETTINGS,
            accelerator=Accelerator(cpu=True),
            checkpoints=Checkpoints(tmp_path),
            reporter=Silent(),
        )
    assert "micro_batch" in str(caught.value.fix)


class Hungry(nn.Module):
    """A student that finds no memory for whole batches."""

    outputs: Mapping[str, int] = {"image": 7, "text": 7}

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(7, 7)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if len(inputs["image"]) > 4:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return {"image": self.linear(inputs["image"]), "text": inputs["text"]}


def test_no_memory_left_says_how_much_to_compute_at_a_time(tmp_path: Path) -> None:
    task = DistillTask(Hungry(), {"a": TeacherProjection()}, [Term("fd", 1.0, FeatureDistillation(), per_sample=True)])
    with raises_error("KD-DIST-271", mentions=("step 0",)) as caught:
        train(
            task,
            Loader(0, 1),
            SETTINGS,
            accelerator=Accelerator(cpu=True),
            checkpoints=Checkpoints(tmp_path),
            reporter=Silent(),
        )
    assert (
        "'optimizer: {micro_batch: 4}' in registry.yaml instead of 8 samples of a process at once" in caught.value.fix
    )
    assert "activations" in caught.value.fix


def test_a_run_continues_from_the_checkpoint_before_a_damaged_one(folder: Path) -> None:
    with pytest.raises(InterruptedError):
        distill(open_project(folder), Options(cpu=True, seed=3, checkpoint_seconds=0.0), reporter=Stopped())
    newest = max((folder / ".kdkit" / "runs").glob("*/step-*"))
    (newest / file_of(0)).write_bytes(b"damaged")
    heard = Heard()
    resumed = distill(open_project(folder), Options(cpu=True, seed=3), reporter=heard)
    assert resumed is not None
    assert any(newest.name in line for line in heard.warnings)
    whole = run(open_project(folder), seed=3, restart=True)
    assert_equal(weights(folder, resumed.version.name), weights(folder, whole.version.name))


# ------------------------------------------------------------------------ processes of their own


def interrupt_at(folder: Path, step: int, how: signal.Signals) -> int:
    """Start a run that writes a checkpoint at every step and stop it at ``step``."""
    process, lines = start_module("tests.run_toy", str(folder), str(step))
    with lines:
        for line in lines:
            if line.startswith(f"distill: {step}/"):
                os.kill(process.pid, how)
    return process.wait(300)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_bit_for_bit_as_an_uninterrupted_one(folder: Path, how: signal.Signals) -> None:
    recipe(folder, ("steps: 40}", "steps: 90, ema: 0.99}"))
    code = interrupt_at(folder, 31, how)
    assert code != 0
    assert list((folder / ".kdkit" / "runs").glob("*/step-*"))
    resumed = run(open_project(folder))
    again = run(open_project(folder), restart=True)
    assert_equal(weights(folder, resumed.version.name), weights(folder, again.version.name))


# ------------------------------------------------------------------------ signals in this process


class Signalled(Heard):
    """Sends this process a signal during a step."""

    def __init__(self, step: int, how: signal.Signals) -> None:
        super().__init__()
        self.step, self.how, self.steps = step, how, list[int]()

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG002  # the protocol's
        if label == "distill":
            self.steps.append(done)
            if done == self.step:
                os.kill(os.getpid(), self.how)


@pytest.mark.parametrize("how", [signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
@pytest.mark.parametrize(("step", "saved"), [(7, 8), (40, 40)], ids=["amid", "last"])
def test_a_signal_writes_a_checkpoint_after_the_step(step: int, saved: int, how: signal.Signals, folder: Path) -> None:
    options, names = Options(cpu=True, seed=5, checkpoint_seconds=1e9), Versions(open_project(folder)).names()
    before = signal.signal(how, signal.SIG_DFL)  # a parent process may ignore it
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            distill(open_project(folder), options, reporter=Signalled(step, how))
    finally:
        signal.signal(how, before)
    assert caught.value.args == (how,)
    assert [path.name for path in (folder / ".kdkit" / "runs").glob("*/step-*")] == [f"step-{saved:08d}"]
    assert Versions(open_project(folder)).names() == names
    again = Signalled(0, how)
    resumed = distill(open_project(folder), options, reporter=again)
    assert resumed is not None
    assert again.steps == list(range(saved + 1, 41))
    whole = run(open_project(folder), seed=5, restart=True)
    assert_equal(weights(folder, resumed.version.name), weights(folder, whole.version.name))


def test_an_ignored_hangup_ends_no_run(folder: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        heard = Signalled(7, signal.SIGHUP)
        assert distill(open_project(folder), Options(cpu=True, seed=5), reporter=heard) is not None
    finally:
        signal.signal(signal.SIGHUP, before)
    assert heard.steps == list(range(1, 41))
