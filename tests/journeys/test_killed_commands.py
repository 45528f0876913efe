"""Commands that are killed and run again leave what they leave without a kill; ``benchmarks/kills.py`` tries more."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from kdkit.core.plugin_system import discovery
from tests.kills import Sweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    installed = discovery.load_catalogue
    commands = ("add-teacher radio --from local:models/radio --license mit", "distill --cpu")
    yield Sweep(tmp_path_factory.mktemp("kills"), commands)
    discovery.load_catalogue = installed  # the sweep replaced it in this process


def test_a_retry_after_a_kill_gives_the_same_project(sweep: Sweep) -> None:
    """At a random operation; for distill also near the end, between the renames of a promotion."""
    draw, (add, distill) = random.Random(0), sweep.steps
    trials = [sweep.kill(add, draw, by_time=False)]
    trials += [sweep.kill_at(distill, distill.operations - back) for back in (2, 8)]
    assert [(trial.killed, trial.problem) for trial in trials] == [(True, "")] * len(trials)
