"""Processes of one run. A server that has imported torch forks them: importing costs more than most of their tests."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch.multiprocessing as mp

IMPORTED = (
    *("torch._dynamo", "torch.distributed.checkpoint", "torch.distributed.fsdp", "torch.distributed.tensor"),
    *("accelerate", "kdkit.core.distill.model.build"),
)


def run_ranks(worker: Callable[..., None], *args: Any, world: int) -> None:
    """``worker(rank, *args)`` in ``world`` processes, until all have ended; an exception in one is raised here."""
    ranks = start_ranks(worker, *args, world=world)
    while not ranks.join():
        pass


def start_ranks(worker: Callable[..., None], *args: Any, world: int) -> Any:
    """Starts the processes; of the result, ``processes`` are they, and ``join()`` is true when all have ended."""
    multiprocessing.set_forkserver_preload([*IMPORTED])
    return mp.start_processes(worker, args=args, nprocs=world, join=False, start_method="forkserver")  # type: ignore[attr-defined,no-untyped-call]
