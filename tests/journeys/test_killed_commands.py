"""Commands that are killed and run again leave what they leave without a kill; ``benchmarks/kills.py`` tries more."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from kdkit.core.plugin_system import discovery
from tests.killed_projects import ANSWERING, Life, make_toy
from tests.kills import Sweep

TOY = Life(make_toy, ("add-teacher radio --from local:models/radio --license mit", "distill --cpu"))


@pytest.fixture
def sweep(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    """Of the life that is the parameter."""
    installed = discovery.load_catalogue
    sweep = Sweep(tmp_path_factory.mktemp("kills"), request.param)
    yield sweep
    sweep.close()
    discovery.load_catalogue = installed  # the sweep replaced it in this process


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
