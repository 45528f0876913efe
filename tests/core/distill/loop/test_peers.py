"""A rank that loses another one says which, its last step and its error; a frozen one ends the run."""

from __future__ import annotations

import os
import signal
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.distill.loop import peers
from tests.errors import raises_error
from tests.ranks import start_ranks

WORLD = 3


def wait_until_noted(mine: Any) -> None:
    """Until the others can read this rank's step."""
    while mine._notes.get(mine._rank, {}).get("step") != mine.step:
        time.sleep(peers.BEAT / 4)


def _train(rank: int, ends: int, failure: BaseException | None) -> None:
    """Steps until ``ends`` fails or kills itself at the second one."""
    with peers.watched_peers() as mine:
        for step in range(10**6):
            mine.step = step
            dist.all_reduce(torch.ones(1))
            if rank == ends and step == 1:
                wait_until_noted(mine)
                if failure is not None:
                    raise failure
                os.kill(os.getpid(), signal.SIGKILL)


def _worker(rank: int, folder: str) -> None:
    """With a store in the folder, as an agent of torchrun has it: it stays when a process ends."""
    peers.BEAT = 0.2
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    failure = None if "killed" in folder else KdkitError("KD-TEST-001", "the loss is not a number")
    if rank == 2 and failure is not None:
        with raises_error("KD-TEST-001"):
            _train(rank, 2, failure)
        os._exit(0)
    said = "ended at step 1: KD-TEST-001 the loss is not a number" if failure else "its last step was 1"
    with raises_error("KD-DIST-041", mentions=(f"process 2 {said}" if failure else "process 2 ended", said)):
        _train(rank, 2, failure)
    Path(folder, f"said-{rank}").touch()
    os._exit(0)  # gloo's threads of a broken group abort a regular exit


def _frozen_worker(rank: int, folder: str) -> None:
    peers.BEAT, peers.SLOW, peers.FROZEN = 0.2, 1.0, 6.0
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    if rank == 0:
        os.dup2(os.open(Path(folder, "said"), os.O_WRONLY | os.O_CREAT), sys.stderr.fileno())
    with peers.watched_peers() as mine:
        mine.step = 4 + rank
        wait_until_noted(mine)
        if rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        dist.all_reduce(torch.ones(1))


@pytest.mark.parametrize("how", ["killed", "failed"])
def test_a_rank_that_ends_is_named_with_its_last_step_and_error(how: str, tmp_path: Path) -> None:
    folder = tmp_path / how
    folder.mkdir()
    ranks = start_ranks(_worker, str(folder), world=WORLD)
    for process in ranks.processes:
        process.join(120)
    assert sorted(path.name for path in folder.glob("said-*")) == ["said-0", "said-1"]
    expected = -signal.SIGKILL if how == "killed" else 0
    assert [process.exitcode for process in ranks.processes] == [0, 0, expected]


def test_a_rank_without_a_sign_of_life_ends_the_others(tmp_path: Path) -> None:
    ranks = start_ranks(_frozen_worker, str(tmp_path), world=2)
    waiting, frozen = ranks.processes
    waiting.join(120)
    os.kill(frozen.pid, signal.SIGKILL)
    frozen.join(120)
    assert waiting.exitcode == ExitCode.MISSING
    said = (tmp_path / "said").read_text(encoding="utf-8")
    assert "error[KD-DIST-524]" in said
    assert "process 1" in said
    assert "it was at step 5" in said
    assert "process 0 at step 4, process 1 at step 5" in said


@pytest.mark.parametrize("notes", [peers.FROZEN / peers.BEAT, peers.FROZEN / peers.BEAT + 1])
def test_the_time_for_which_all_ranks_are_suspended_does_not_count(
    notes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scheduler suspends all ranks for an hour between any two notes; the other one is silent for these notes."""
    hours = count(step=3600.0)
    ended: list[tuple[int, int]] = []
    monkeypatch.setattr(time, "monotonic", lambda: next(hours))
    monkeypatch.setattr(peers, "get_world_size", lambda: 2)
    monkeypatch.setattr(peers, "_end_run", lambda *rank_and_step: ended.append(rank_and_step))
    store = cast(Any, dist).HashStore()
    store.set("note/1", '{"beat": 1, "step": 7}')
    mine = peers.Peers(store)
    waits = iter([False] * (1 + int(notes)) + [True])  # the first note of the other one is news
    monkeypatch.setattr(mine._ended, "wait", lambda _: next(waits))
    mine._watch()
    assert ended == ([(1, 7)] if notes > peers.FROZEN / peers.BEAT else [])
