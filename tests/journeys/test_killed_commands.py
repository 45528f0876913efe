"""Commands that are killed and run again leave what they leave without a kill; ``benchmarks/kills.py`` tries more."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from kdkit.core.plugin_system import discovery
from tests import kills
from tests.killed_projects import ANSWERING, Life, make_toy
from tests.kills import Sweep

TOY = Life(make_toy, ("add-teacher radio --from local:models/radio --license mit", "distill --cpu"))


@pytest.fixture
def sweep(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    """Of the life that is the parameter."""
    with closing(Sweep(tmp_path_factory.mktemp("kills"), request.param)) as sweep:
        yield sweep


@pytest.mark.parametrize("trouble", ["make", "close"])
def test_a_sweep_leaves_this_process_as_it_was(trouble: str, tmp_path: Path) -> None:
    """Also if its project cannot be made."""

    def make(folder: Path) -> None:
        assert discovery.load_catalogue is not installed
        if trouble == "make":
            raise OSError(folder)
        folder.mkdir(parents=True)

    installed, threads = discovery.load_catalogue, torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(OSError) if trouble == "make" else nullcontext():
            Sweep(tmp_path / "life", Life(make, (), needs_hub=True)).close()
        assert discovery.load_catalogue is installed
        assert torch.get_num_threads() == 2
        assert multiprocessing.active_children() == []
    finally:
        torch.set_num_threads(threads)


def test_a_command_that_waits_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(*arguments: Any) -> None:
        arguments[2].write_text("begun", encoding="utf-8")  # the log
        time.sleep(20)
        os._exit(0)

    monkeypatch.setattr(kills, "LIMIT", 1)
    monkeypatch.setattr(kills, "_become", wait)
    with pytest.raises(AssertionError, match="begun"):
        Sweep(tmp_path, Life(lambda folder: folder.mkdir(parents=True), ("distill",)))


@pytest.mark.parametrize("sweep", [TOY], indirect=True)
def test_a_retry_after_a_kill_gives_the_same_project(sweep: Sweep) -> None:
    """At a random operation; for distill also near the end, between the renames of a promotion."""
    draw, (add, distill) = random.Random(0), sweep.steps
    trials = [sweep.kill(add, draw, by_time=False)]
    trials += [sweep.kill_at(distill, distill.operations - back) for back in (2, 8)]
    assert [(trial.killed, trial.problem) for trial in trials] == [(True, "")] * len(trials)


@pytest.mark.parametrize("sweep", [ANSWERING], indirect=True)
def test_a_retry_answers_the_rest(sweep: Sweep) -> None:
    """``answer``, ``correct`` and ``pseudo-label``, each after its first answers."""
    trials = [sweep.kill_at(step, step.operations - 4) for step in sweep.steps[1:]]
    assert [(trial.killed, trial.problem) for trial in trials] == [(True, "")] * len(trials)
