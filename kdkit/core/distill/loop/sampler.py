"""The samples of every batch: a pure function of (seed, step), so resuming needs no state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdkit.core.distill.plan.types import Indices, Plan, SamplePool, first_of_each
from kdkit.core.features.store.shard import BLOCK_ROWS

MIXED_BLOCKS, MIXED_BATCHES = 64, 8
"""Blocks of the store that a batch is drawn from, at least: of 512 samples, and as many as so many batches fill."""


class BatchSampler:
    """The batches of a run.

    Every domain of a pool is an endless stream of its own permutations; a step takes the next samples. How many it
    takes from each domain is drawn in advance for all steps, so the batch of any step can be computed alone.

    With ``ranges`` of the pools, a batch is that of several such samplers, one after the other, each with its own range
    of every domain. Processes whose number divides the ranges then read disjoint rows, and batches are the same for any
    number of processes. A range without a sample of a pool draws from all of the pool.

    Example:
        >>> pool = SamplePool(indices=np.arange(6), domain=np.array([0, 0, 0, 0, 1, 1]))
        >>> sampler = BatchSampler([pool], batch_size=3, steps=4, seed=0)
        >>> len(sampler), sampler[2].tolist() == sampler[2].tolist(), len(sampler[2])
        (4, True, 3)
    """

    def __init__(self, pools: Sequence[SamplePool], *, batch_size: int, steps: int, seed: int) -> None:
        self.batch_size, self.steps = batch_size, steps
        parts = list(zip(*(_cut(pool) for pool in pools), strict=True))
        self._streams: list[_PoolStream] = []
        for number, (part, of_part) in enumerate(zip(parts, split_batch([1.0] * len(parts), batch_size), strict=True)):
            sizes = split_batch([pool.share for pool in pools], of_part)
            self._streams += [
                _PoolStream(pool, size, steps, seed=seed, number=number * len(pools) + place)
                for place, (pool, size) in enumerate(zip(part, sizes, strict=True))
                if size
            ]

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Indices:
        """(batch_size,) rows of the sample index."""
        if not 0 <= step < self.steps:
            raise IndexError(step)
        return np.concatenate([stream.take(step) for stream in self._streams])

    def drawn(self) -> dict[int, int]:
        """Domain -> samples that all steps together draw from it."""
        found: dict[int, int] = {}
        for stream in self._streams:
            for domain, count in stream.drawn().items():
                found[domain] = found.get(domain, 0) + count
        return found


@dataclass(frozen=True)
class DomainUse:
    """How a run uses a domain.

    Attributes:
        samples: its training samples.
        drawn: samples that batches draw from it, repetitions included.
        passes: how often a sample is seen: ``drawn`` by the samples of one pass, of which each group has at most
            ``max_per_group``, and each image one caption.
    """

    samples: int
    drawn: int
    passes: float


def use_of_domains(plan: Plan) -> dict[str, DomainUse]:
    """Domain -> how the plan's batches use it, before corrections and repair."""
    sampler = BatchSampler(plan.pools, batch_size=plan.batch_size, steps=plan.settings.steps, seed=plan.settings.seed)
    drawn, sizes, samples = sampler.drawn(), Counter[int](), Counter[int]()
    for pool in plan.pools:
        sizes.update(pool.pass_sizes())
        samples.update(pool.domain.tolist())
    return {
        plan.domains[domain]: DomainUse(samples[domain], drawn.get(domain, 0), drawn.get(domain, 0) / sizes[domain])
        for domain in sorted(samples)
    }


def _cut(pool: SamplePool) -> list[SamplePool]:
    """The pool of each of its ranges."""
    if pool.ranges == 1:
        return [pool]
    ranges = pool.range_of_each()
    parts = [pool.part(ranges == number, pool.share) for number in range(pool.ranges)]
    return [part if len(part.indices) else pool for part in parts]


def mix_blocks(blocks: Indices, mixed: int, rng: np.random.Generator) -> Indices:
    """Places in random order, in which samples of one block come near each other.

    The blocks are in random order on a circle, and each sample is up to ``mixed`` blocks behind the beginning of its
    own. So about ``mixed`` blocks are read at a time, each once, and a new one begins whenever a block is used up.
    ``mixed`` blocks or fewer are in uniformly random order.

    Args:
        blocks: (N,) number of each sample's block.
    """
    numbers, block = np.unique(blocks, return_inverse=True)
    count = len(numbers)
    place = rng.permutation(count)[block] + rng.random(len(block)) * min(mixed, count)
    order: Indices = np.argsort(place % count, kind="stable")
    return order


def split_batch(shares: Sequence[float], batch_size: int) -> list[int]:
    """Whole numbers that sum to ``batch_size``, as near to the shares as possible (largest remainder).

    Example:
        >>> split_batch([0.5, 0.25, 0.25], 10)
        [5, 3, 2]
    """
    exact = np.asarray(shares, dtype=float) / sum(shares) * batch_size
    sizes = np.floor(exact).astype(int)
    for place in np.argsort(-(exact - sizes), kind="stable")[: batch_size - sizes.sum()]:
        sizes[place] += 1
    return [int(size) for size in sizes]


class _PoolStream:
    def __init__(self, pool: SamplePool, size: int, steps: int, *, seed: int, number: int) -> None:
        self._seed, self._number = seed, number
        self._mixed = max(MIXED_BLOCKS, -(-MIXED_BATCHES * size // BLOCK_ROWS)) if pool.blocks else 0
        domains = np.unique(pool.domain)
        self._domains: list[int] = domains.tolist()
        self._members = [pool.indices[pool.domain == domain] for domain in domains]
        self._limits = [[(of[pool.domain == domain], most) for of, most in pool.limits] for domain in domains]
        turns = pool.conversation
        self._turns = [None if turns is None else turns[pool.domain == domain] for domain in domains]
        sizes = pool.pass_sizes()
        self._lengths = [sizes[domain] for domain in self._domains]
        counts = self._draw_counts(pool, size, steps)
        self._ends = np.cumsum(counts, axis=0)
        self._starts = self._ends - counts
        self._permutations: dict[tuple[int, int], Indices] = {}

    def _draw_counts(self, pool: SamplePool, size: int, steps: int) -> Indices:
        """(steps, domains): how many samples each step takes from each domain."""
        mass = np.array(self._lengths, dtype=float) ** pool.domain_power
        rng = np.random.default_rng([self._seed, self._number, 0])
        if pool.domains_per_batch is None or pool.domains_per_batch >= len(mass):
            return rng.multinomial(size, mass / mass.sum(), size=steps).astype(np.int64)
        counts = np.zeros((steps, len(mass)), dtype=np.int64)
        for row in counts:
            chosen = rng.choice(len(mass), size=pool.domains_per_batch, replace=False, p=mass / mass.sum())
            row[chosen] = split_batch([1.0] * len(chosen), size)
        return counts

    def drawn(self) -> dict[int, int]:
        """Domain -> samples of all steps."""
        return dict(zip(self._domains, self._ends[-1].tolist(), strict=True))

    def take(self, step: int) -> Indices:
        parts = [
            self._slice(domain, int(start), int(end))
            for domain, (start, end) in enumerate(zip(self._starts[step], self._ends[step], strict=True))
            if end > start
        ]
        return np.concatenate(parts)

    def _slice(self, domain: int, start: int, end: int) -> Indices:
        length = self._lengths[domain]
        first, last = start // length, (end - 1) // length
        passes = [(self._permutation(domain, epoch), epoch * length) for epoch in range(first, last + 1)]
        return np.concatenate([order[max(0, start - begun) : end - begun] for order, begun in passes])

    def _permutation(self, domain: int, epoch: int) -> Indices:
        key = (domain, epoch)
        if key not in self._permutations:
            # Later steps need only the current epoch and its neighbors.
            self._permutations = {k: v for k, v in self._permutations.items() if k[0] != domain or k[1] >= epoch - 1}
            rng = np.random.default_rng([self._seed, self._number, 1, domain, epoch])
            self._permutations[key] = self._members[domain][self._order(domain, rng)]
        return self._permutations[key]

    def _order(self, domain: int, rng: np.random.Generator) -> Indices:
        """Places of one pass in random order: one caption of each image, and no more of a group than it may have; turns
        of a conversation at the place of its first one, if the pool has conversations."""
        order: Indices
        if self._mixed:
            order = mix_blocks(self._members[domain] // BLOCK_ROWS, self._mixed, rng)
        else:
            order = rng.permutation(len(self._members[domain]))
        for numbers, most in self._limits[domain]:
            order = first_of_each(order, np.zeros_like(numbers), numbers, most)
        turns = self._turns[domain]
        if turns is None:
            return order
        _, first, conversation = np.unique(turns[order], return_index=True, return_inverse=True)
        return order[np.argsort(first[conversation], kind="stable")]
