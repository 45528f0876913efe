"""Processes of one run. A server that has imported torch forks them: importing costs more than most of their tests."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch.multiprocessing as mp

IMPORTED = ("accelerate", "torch.distributed.fsdp", "torch.distributed.tensor", "kdkit.core.distill.model.build")


def run_ranks(worker: Callable[..., None], *args: Any, world: int) -> None:
    """``worker(rank, *args)`` in ``world`` processes, until all have ended; an exception in one is raised here."""
    multiprocessing.set_forkserver_preload([*IMPORTED])
    mp.start_processes(worker, args=args, nprocs=world, start_method="forkserver")  # type: ignore[attr-defined,no-untyped-call]
