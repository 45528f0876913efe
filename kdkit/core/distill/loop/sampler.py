"""Which samples make the batch of a step: a pure function of (seed, step), so that resuming needs no state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Indices = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Pool:
    """Samples from which a share of every batch is drawn.

    Attributes:
        indices: rows of the sample table.
        domain: domain of each of them, same length.
        share: fraction of the batch in (0, 1].
        domain_power: domains are drawn with probability proportional to (their size) ** domain_power:
            1 keeps the data's proportions, 0 makes all domains equal.
        domains_per_batch: how many domains one batch mixes; None for all.
    """

    indices: Indices
    domain: Indices
    share: float = 1.0
    domain_power: float = 1.0
    domains_per_batch: int | None = None


class BatchSchedule:
    """The batches of a run.

    Every domain of a pool is an endless stream of its own permutations; a step takes the next ones. How many
    it takes from each domain is drawn beforehand for all steps, so any step's batch can be asked for alone.
    """

    def __init__(self, pools: Sequence[Pool], *, batch_size: int, steps: int, seed: int) -> None:
        self.batch_size, self.steps = batch_size, steps
        sizes = split_batch([pool.share for pool in pools], batch_size)
        self._streams = [
            _PoolStream(pool, size, steps, seed=seed, number=number)
            for number, (pool, size) in enumerate(zip(pools, sizes, strict=True))
            if size
        ]

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Indices:
        """(batch_size,) rows of the sample table."""
        if not 0 <= step < self.steps:
            raise IndexError(step)
        return np.concatenate([stream.take(step) for stream in self._streams])


def split_batch(shares: Sequence[float], batch_size: int) -> list[int]:
    """Whole numbers that sum to ``batch_size``, as near to the shares as can be (largest remainder)."""
    exact = np.asarray(shares, dtype=float) / sum(shares) * batch_size
    sizes = np.floor(exact).astype(int)
    for place in np.argsort(-(exact - sizes), kind="stable")[: batch_size - sizes.sum()]:
        sizes[place] += 1
    return [int(size) for size in sizes]


class _PoolStream:
    def __init__(self, pool: Pool, size: int, steps: int, *, seed: int, number: int) -> None:
        self._seed, self._number = seed, number
        domains = np.unique(pool.domain)
        self._members = [pool.indices[pool.domain == domain] for domain in domains]
        counts = self._draw_counts(pool, size, steps)
        self._ends = np.cumsum(counts, axis=0)
        self._starts = self._ends - counts
        self._permutations: dict[tuple[int, int], Indices] = {}

    def _draw_counts(self, pool: Pool, size: int, steps: int) -> Indices:
        """(steps, domains): how many samples each step takes from each domain."""
        mass = np.array([len(members) for members in self._members], dtype=float) ** pool.domain_power
        rng = np.random.default_rng([self._seed, self._number, 0])
        if pool.domains_per_batch is None or pool.domains_per_batch >= len(mass):
            return rng.multinomial(size, mass / mass.sum(), size=steps).astype(np.int64)
        counts = np.zeros((steps, len(mass)), dtype=np.int64)
        for row in counts:
            chosen = rng.choice(len(mass), size=pool.domains_per_batch, replace=False, p=mass / mass.sum())
            row[chosen] = split_batch([1.0] * len(chosen), size)
        return counts

    def take(self, step: int) -> Indices:
        parts = [
            self._slice(domain, int(start), int(end))
            for domain, (start, end) in enumerate(zip(self._starts[step], self._ends[step], strict=True))
            if end > start
        ]
        return np.concatenate(parts)

    def _slice(self, domain: int, start: int, end: int) -> Indices:
        length = len(self._members[domain])
        first, last = start // length, (end - 1) // length
        stream = np.concatenate([self._permutation(domain, epoch) for epoch in range(first, last + 1)])
        return stream[start - first * length : end - first * length]

    def _permutation(self, domain: int, epoch: int) -> Indices:
        key = (domain, epoch)
        if key not in self._permutations:
            # Only the current epoch and its neighbor are ever needed again.
            self._permutations = {k: v for k, v in self._permutations.items() if k[0] != domain or k[1] >= epoch - 1}
            rng = np.random.default_rng([self._seed, self._number, 1, domain, epoch])
            self._permutations[key] = rng.permutation(self._members[domain])
        return self._permutations[key]
