"""Two threads in place of the two ranks of a run, to check what they exchange."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Rank:
    """One of two ranks; a collective call waits for the other one's.

    Args:
        number: 0 or 1.
        sent: what each rank sent to the other.
    """

    def __init__(self, number: int, sent: Sequence[queue.SimpleQueue[Tensor | None]]) -> None:
        self.number, self._out, self._in = number, sent[number], sent[1 - number]

    def total(self, x: Tensor) -> Tensor:
        """The sum over both ranks."""
        mine, other = self._exchange(x)
        return mine + other

    def gather(self, x: Tensor) -> Tensor:
        """(b, ...) of each rank -> the rows of both."""
        both = self._exchange(x)
        return torch.cat(both if self.number == 0 else both[::-1])

    def end(self) -> None:
        """No call follows."""
        self._out.put(None)

    def _exchange(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self._out.put(x.detach())
        other = self._in.get()
        assert other is not None, "one share asks for more totals or gathers than the other: processes would deadlock"
        return x.detach(), other


def on_two_ranks(compute: Callable[[Rank], T]) -> list[T]:
    """``compute`` on both ranks at once.

    Raises:
        AssertionError: one made more collective calls than the other.
    """
    sent: list[queue.SimpleQueue[Tensor | None]] = [queue.SimpleQueue(), queue.SimpleQueue()]

    def run(number: int) -> T:
        rank = Rank(number, sent)
        try:
            return compute(rank)
        finally:
            rank.end()

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, range(2)))
