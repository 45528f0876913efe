"""Extraction by several workers at once: each claims blocks, computes them and commits them to the same shards."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdkit.core.contracts import Reporter, SignalSource
from kdkit.core.data.index import SampleIndex
from kdkit.core.features.extract.claims import Claims
from kdkit.core.features.extract.passes import Taken, run_pass, samples_of
from kdkit.core.features.extract.shard_writer import Indices, ShardWriter
from kdkit.core.features.extract.workers import WorkerRecord
from kdkit.core.features.store.header import Header
from kdkit.core.features.store.shard import Shard

FOLDER = ".workers"
"""Below the root of a store: records and claims of the workers that extract into it now."""
POLL_SECONDS = 0.2
SHOWN = 4
"""Workers that the progress lists by name."""


@dataclass(frozen=True)
class PendingBlock:
    """A block of a shard that lacks features.

    Attributes:
        source: the teacher's signals.
        shard: open for writing.
        block: its number.
        samples: (rows of the shard,) the sample of each row, -1 for none.
    """

    source: SignalSource
    shard: Shard
    block: int
    samples: Indices

    @property
    def name(self) -> str:
        """Of the claim: teacher, fingerprint, shard, block."""
        column = self.shard.path.parent
        return f"{column.parent.name}-{column.name}-{self.shard.path.stem}-{self.block:06d}"

    @cached_property
    def wanted(self) -> Indices:
        """The samples to compute, in the order of the rows."""
        rows = self.samples[self.shard.rows_of(self.block)]
        return rows[rows >= 0]

    @cached_property
    def ascending(self) -> bool:
        """Whether other blocks can share the pass."""
        return bool((np.diff(self.wanted) > 0).all())

    @property
    def range(self) -> tuple[int, int]:
        """First and last sample."""
        return (int(self.wanted.min()), int(self.wanted.max())) if len(self.wanted) else (0, 0)


class _ClaimedBlock:
    """One block of a shard as a target of :class:`ShardWriter`; the commit gives the claim back."""

    def __init__(self, pending: PendingBlock, claims: Claims) -> None:
        self._pending, self._claims, self._shard = pending, claims, pending.shard
        self.path: Path = self._shard.path
        self.header: Header = self._shard.header

    def pending(self) -> list[int]:
        return [self._pending.block]

    def rows_of(self, block: int) -> slice:
        return self._shard.rows_of(block)

    def commit(self, block: int, values: Mapping[str, NDArray[Any]], status: NDArray[np.uint8]) -> None:
        """Commit, unless a worker that took the claim over was faster."""
        with self._claims.workers.committing():
            if not self._shard.committed_now()[block]:
                self._shard.commit(block, values, status)
        self._claims.release(self._pending.name)

    def close(self) -> None:
        """Other blocks use the same open shard."""


class SharedExtraction:
    """One worker's part of the blocks that all workers have to compute.

    Args:
        index: all samples.
        blocks: all that is pending, in any order.
        claims: of this worker.
        batch_size: samples per call of a teacher.
        reporter: shows the progress of all workers.
    """

    def __init__(
        self,
        index: SampleIndex,
        blocks: Sequence[PendingBlock],
        claims: Claims,
        batch_size: int,
        reporter: Reporter,
    ) -> None:
        self._index, self._claims, self._batch_size, self._reporter = index, claims, batch_size, reporter
        self._blocks = sorted(blocks, key=lambda block: block.range)
        self._shards = tuple({id(block.shard): block.shard for block in blocks}.values())
        self._wanted = {shard.path: np.zeros(len(shard.committed), np.int64) for shard in self._shards}
        for block in blocks:
            self._wanted[block.shard.path][block.block] = len(block.wanted)
        self._rows = self._left()

    def run(self, threads: int) -> None:
        """Compute blocks until all are committed, by this or another worker.

        Raises:
            KdkitError: of a teacher. The block is not stored, and another worker will try it.
        """
        workers = self._claims.workers
        try:
            while pending := self._pending():
                idle = True
                for rows in run_pass(self._claimed(pending), self._batch_size, threads):
                    idle = False
                    if workers.beat(rows, tuple(self._claims.own)):
                        self._report(self._claims.free_abandoned())
                if idle:
                    self._wait()
        except Exception:
            workers.beat(failed=tuple(self._claims.own))
            raise
        finally:
            self._claims.release_all()
            for shard in self._shards:
                shard.close()
        if self._rows:
            self._reporter.progress("features", self._rows, self._rows)

    def _pending(self) -> list[PendingBlock]:
        """Blocks that no worker has committed; those that another one failed on last."""
        marks = {shard.path: shard.committed_now() for shard in self._shards}
        found = [block for block in self._blocks if not marks[block.shard.path][block.block]]
        return sorted(found, key=lambda block: block.name in self._claims.failed)

    def _left(self) -> int:
        """Rows of all blocks that no worker has committed."""
        return sum(int(self._wanted[shard.path][~shard.committed_now()].sum()) for shard in self._shards)

    def _claimed(self, pending: Sequence[PendingBlock]) -> Iterator[Taken]:
        """The samples of one claimed block after the other, with those of other teachers' blocks that share images."""
        begun: set[str] = set()
        for number, lead in enumerate(pending):
            if lead.name in begun or not self._take(lead):
                continue
            group = [lead]
            for other in self._neighbors(pending, number):
                # One block per teacher at a time: cached texts of another block would change the last bits.
                own = any(other.source is block.source for block in group)
                if not own and other.name not in begun and self._take(other):
                    group.append(other)
            begun.update(block.name for block in group)
            targets = [(block, _ClaimedBlock(block, self._claims)) for block in group]
            writers = [ShardWriter(block.source, to, block.samples, self._batch_size) for block, to in targets]
            yield from samples_of(self._index, writers)

    def _neighbors(self, pending: Sequence[PendingBlock], number: int) -> Iterator[PendingBlock]:
        """Later blocks whose first sample is among those of a block."""
        lead = pending[number]
        following = range(number + 1, len(pending)) if lead.ascending else ()
        for other in (pending[place] for place in following):
            if other.range[0] > lead.range[1]:
                return
            if other.ascending:
                yield other

    def _take(self, block: PendingBlock) -> bool:
        """Claim a block; False if another worker has it, or had it and is done."""
        if not self._claims.take(block.name):
            return False
        if block.shard.committed_now()[block.block]:
            self._claims.release(block.name)
            return False
        return True

    def _wait(self) -> None:
        """Other workers have all that is left."""
        if self._claims.workers.beat():
            self._report(self._claims.free_abandoned())
        time.sleep(POLL_SECONDS)

    def _report(self, others: Sequence[WorkerRecord]) -> None:
        workers = self._claims.workers
        workers.see(self._left(), self._rows)
        self._reporter.progress("features", *progress_of([workers.own, *others]))


def progress_of(workers: Sequence[WorkerRecord]) -> tuple[int, int, str]:
    """Rows that are stored, rows in all, and a note; never complete, since workers still run."""
    total = max(worker.total for worker in workers)
    left = min(worker.left for worker in workers if worker.total == total)
    return max(0, min(total - left, total - 1)), total, _speeds(workers, left)


def _speeds(workers: Sequence[WorkerRecord], left: int) -> str:
    rates = {worker.name: worker.rows / max(worker.seconds, 1e-9) for worker in workers}
    total = sum(rates.values())
    time_left = f", {left / total:.0f} s left" if total else ""
    if len(workers) == 1:
        return f"{total:.0f} rows/s{time_left}"
    each = ", ".join(f"{name} {rate:.0f}" for name, rate in list(rates.items())[:SHOWN])
    more = f" and {len(rates) - SHOWN} more" if len(rates) > SHOWN else ""
    return f"{len(workers)} workers, {total:.0f} rows/s ({each}{more}){time_left}"


@contextmanager
def alone(claims: Claims, name: str) -> Iterator[None]:
    """A block that one worker at a time runs; waits for the others."""
    while not claims.take(name):
        if claims.workers.beat():
            claims.free_abandoned()
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        claims.release(name)


class BeatingReporter:
    """A reporter whose progress tells the other workers that this one lives."""

    def __init__(self, reporter: Reporter, claims: Claims) -> None:
        self._reporter, self._claims = reporter, claims

    def say(self, text: str) -> None:
        self._reporter.say(text)

    def warn(self, text: str) -> None:
        self._reporter.warn(text)

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:
        self._claims.workers.beat()
        self._reporter.progress(label, done, total, note)


def samples_digest(index: SampleIndex) -> str:
    """Hex digest of the samples' ids and contents, in order."""
    state = blake2b(digest_size=8)
    for name in index.ids:
        state.update(name.encode() + b"\0")
    state.update(index.digests.astype("<u8").tobytes())
    return state.hexdigest()
