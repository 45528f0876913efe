"""Signals that end a run: Ctrl-C, SIGTERM (schedulers, ``torchrun``), SIGUSR1 (preemption) and SIGHUP (a closed
terminal)."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from kdkit.core.distill.loop.distributed import get_world_size

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class RanksAgree:
    """Whether a rank says yes, asked at every step. The answer comes a step later, so that no GPU waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sent: torch.Tensor | None = None

    def __call__(self, mine: bool) -> bool:
        before, self._sent = self._sent, torch.tensor(float(mine), device=self._device)
        dist.all_reduce(self._sent, op=dist.ReduceOp.MAX)
        return before is not None and bool(before.item())

    def forget(self) -> None:
        """The answer to the last question is no."""
        self._sent = None


class StopRequest:
    """Whether the run shall stop after this step; all ranks give the same answer.

    Attributes:
        signals: the first signal that this process received; empty before.
    """

    def __init__(self, device: torch.device) -> None:
        self.signals: tuple[int, ...] = ()
        self._agree = RanksAgree(device)

    def requested(self) -> bool:
        """Ask once per step."""
        return bool(self.signals) if get_world_size() == 1 else self._agree(bool(self.signals))


@contextmanager
def stop_requests(device: torch.device) -> Iterator[StopRequest]:
    """Collect signals instead of ending at once; of one process, a second Ctrl-C raises immediately."""
    stop = StopRequest(device)

    def on_signal(number: int, _: object) -> None:
        if stop.signals and number == signal.SIGINT and get_world_size() == 1:
            raise KeyboardInterrupt
        stop.signals = stop.signals or (number,)

    with _handlers(on_signal):
        yield stop


@contextmanager
def interrupts_immediately() -> Iterator[None]:
    """Context in which signals raise immediately instead of after the step; its block saves its own progress."""

    def on_signal(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    with _handlers(on_signal):
        yield


@contextmanager
def _handlers(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle :data:`ENDING`, except what is ignored (``nohup``) and outside the main thread (notebooks, servers)."""
    before = {number: signal.getsignal(number) for number in ENDING}
    taken = [number for number, old in before.items() if old not in (signal.SIG_IGN, None)]
    try:
        for number in taken:
            signal.signal(number, handler)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])
