"""Where the time of a training step goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from kdkit.core.distill.loop.distributed import barrier

T = TypeVar("T")
PARTS = ("data", "forward", "losses", "backward", "optimizer", "sync")
"""``data`` is the wait for the batch, ``forward`` the student's, ``sync`` the wait for other processes."""


class Stopwatch:
    """Measures the parts of steps. The device is synchronized after each, so that the parts add up.

    Attributes:
        steps: part -> seconds, for each step.

    Example:
        >>> watch = Stopwatch(torch.device("cpu"))
        >>> for _ in watch.steps_of([1, 2]):
        ...     with watch.part("losses"), watch.part("forward"):
        ...         pass
        >>> len(watch.steps), sorted(watch.steps[0])
        (2, ['data', 'forward', 'losses'])
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._open: list[tuple[str, float]] = []
        self._step: dict[str, float] = {}
        self.steps: list[dict[str, float]] = []

    def steps_of(self, batches: Iterator[T] | list[T]) -> Iterator[T]:
        """The batches; asking for one begins a step, and the time until it is here is ``data``."""
        upcoming = iter(batches)
        while True:
            self._step = {}
            try:
                with self.part("data"):
                    batch = next(upcoming)
            except StopIteration:
                return
            yield batch
            self.steps.append(self._step)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """The block is part of the step; a part within it counts for itself alone."""
        self.begin(name)
        try:
            yield
        finally:
            self.end()

    def begin(self, name: str) -> None:
        """A part begins."""
        self._open.append((name, self._now()))

    def end(self) -> None:
        """The part that began last ends."""
        name, begun = self._open.pop()
        seconds = self._now() - begun
        self._step[name] = self._step.get(name, 0.0) + seconds
        if self._open:  # not of the part around it
            outer = self._open[-1][0]
            self._step[outer] = self._step.get(outer, 0.0) - seconds

    def attach(self, student: nn.Module) -> None:
        """Count the student's forward passes as ``forward``: also those that micro-batches compute again."""
        student.register_forward_pre_hook(lambda *_: self.begin("forward"))
        student.register_forward_hook(lambda *_: self.end(), always_call=True)

    def wait_for_others(self) -> None:
        """Until here, the step is this process's own."""
        with self.part("sync"):
            barrier()

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
