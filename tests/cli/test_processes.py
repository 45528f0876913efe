"""``kdkit distill --gpus N``: what it refuses; that it trains is in test_distill.py."""

from __future__ import annotations

import pytest

from kdkit.cli.processes import run_in_processes, without_option
from tests.errors import raises_error


@pytest.mark.parametrize("words", [["--gpus", "2"], ["--gpus=2"]])
def test_the_processes_get_the_same_command(words: list[str]) -> None:
    assert without_option(["--debug", "distill", *words, "--seed", "2"]) == ["--debug", "distill", "--seed", "2"]


def test_a_launcher_has_started_processes_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with raises_error("KD-DIST-400", mentions=("4 processes",)):
        run_in_processes(2, cpu=True)


def test_more_gpus_than_there_are() -> None:
    with raises_error("KD-DIST-401", mentions=("4096 GPUs",)):
        run_in_processes(4096, cpu=False)
