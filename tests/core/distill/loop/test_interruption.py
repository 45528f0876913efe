"""Signals that end a run: one step for all ranks, and nothing where they are ignored."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
import torch.distributed as dist

from kdkit.core.distill.loop.distributed import peer_errors, require_same
from kdkit.core.distill.loop.interruption import interrupts_immediately, stop_requests
from tests.errors import raises_error
from tests.ranks import run_ranks

CPU = torch.device("cpu")


def test_an_ignored_hangup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests(CPU) as stop, interrupts_immediately():
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested()
    finally:
        signal.signal(signal.SIGHUP, before)


def _worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    require_same(lambda: {"data": "the same"})
    with raises_error("KD-DIST-043", mentions=("different plans", "process 1 ")):
        require_same(lambda: {"data": "the same", "plans": f"that of {rank}"})
    with stop_requests(CPU) as stop:
        answers = []
        for step in range(5):
            if (rank, step) == (1, 2):
                os.kill(os.getpid(), signal.SIGTERM)
            answers.append(stop.requested())
    assert answers == [False, False, False, True, True]
    assert stop.signals == ((signal.SIGTERM,) if rank else ())
    if rank:
        os._exit(0)  # the process dies without a word
    with raises_error("KD-DIST-041"), peer_errors():
        dist.barrier()
    os._exit(0)  # gloo's threads of a broken group abort a regular exit


def test_all_ranks_have_one_plan_and_stop_at_one_step_and_a_dead_one_is_named(tmp_path: Path) -> None:
    run_ranks(_worker, str(tmp_path), world=2)
