"""Runs that are interrupted end with the same weights as uninterrupted ones."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from kdkit.core.contracts import Silent
from kdkit.core.distill.run import Options, distill
from tests.conftest import start_module
from tests.core.distill.toy_runs import Heard, assert_equal, recipe, run, weights
from tests.toy_project import open_project


class Stopped(Silent):
    """A reporter that stops a run after a step."""

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG002  # the protocol's
        if label == "distill" and done == 30:
            raise InterruptedError


def test_a_run_continues_from_the_checkpoint_before_a_damaged_one(folder: Path) -> None:
    with pytest.raises(InterruptedError):
        distill(open_project(folder), Options(cpu=True, seed=3, checkpoint_seconds=0.0), reporter=Stopped())
    newest = max((folder / ".kdkit" / "runs").glob("*/step-*"))
    (newest / "task.safetensors").write_bytes(b"damaged")
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
