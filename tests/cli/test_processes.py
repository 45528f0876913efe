"""``kdkit distill --gpus N``: what it refuses; that it trains is in test_distill.py."""

from __future__ import annotations

import signal

import pytest
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.launcher import api

from kdkit.cli import streams
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


def test_a_signal_that_ends_the_run_is_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise SignalException("got signal 15", signal.SIGTERM)

    monkeypatch.setattr(api, "elastic_launch", lambda *_: interrupted)
    monkeypatch.setattr(streams, "lend_stdout", lambda: None)
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    with pytest.raises(KeyboardInterrupt) as caught:
        run_in_processes(2, cpu=True)
    assert caught.value.args == (signal.SIGTERM,)
