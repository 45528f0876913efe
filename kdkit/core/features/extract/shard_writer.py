"""Writes what one teacher computes into the blocks of one shard."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kdkit.core.contracts import Sample, SignalSource
from kdkit.core.features.extract.encode import Encoder
from kdkit.core.features.store.header import Header
from kdkit.core.features.store.shard import PRESENT, UNREADABLE

if TYPE_CHECKING:
    from PIL.Image import Image

Indices = NDArray[np.int64]


class Blocks(Protocol):
    """Blocks to fill: a :class:`~kdkit.core.features.store.shard.Shard`, or those that a worker claimed of it."""

    path: Path
    header: Header

    def pending(self) -> list[int]: ...
    def rows_of(self, block: int) -> slice: ...
    def commit(self, block: int, values: Mapping[str, NDArray[Any]], status: NDArray[np.uint8]) -> None: ...
    def close(self) -> None: ...


class ShardWriter:
    """Fills the uncommitted blocks of one shard.

    Samples arrive in the order of :attr:`wanted`. A batch never spans two blocks, so that a resumed run computes the
    same batches as an uninterrupted one.

    Args:
        source: the teacher's signals.
        shard: open for writing, or some blocks of it.
        samples: (rows of the shard,) the sample of each row, -1 if the data no longer has it.
        batch_size: samples per call of ``source.compute``.
    """

    def __init__(self, source: SignalSource, shard: Blocks, samples: Indices, batch_size: int) -> None:
        self.source, self._shard, self._batch_size = source, shard, batch_size
        self._encode = Encoder(source, shard.header.teacher, shard.header.signals, where=str(shard.path))
        self._blocks = deque((block, samples[shard.rows_of(block)]) for block in shard.pending())
        self.wanted: Indices = np.concatenate(
            [np.zeros(0, dtype=np.int64), *(found[found >= 0] for _, found in self._blocks)]
        )
        self._items: list[Any] = []
        self._ids: list[str] = []
        self._rows: list[int] = []
        self._begun = False
        self._start_block()

    def prepare(self, image: Image, sample: Sample) -> Any:
        """The teacher's input."""
        return self._encode.prepare(image, sample)

    def add(self, sample: Sample, item: Any) -> None:
        """Take the next sample, prepared."""
        if not self._begun:
            self._encode.begin()
            self._begun = True
        self._items.append(item)
        self._ids.append(sample.id)
        self._rows.append(self._expected.popleft())
        if len(self._items) == self._batch_size or not self._expected:
            self._compute_batch()
        self._finish_block()

    def mark_unreadable(self) -> None:
        """Record that the next sample's image is unreadable."""
        self._status[self._expected.popleft()] = UNREADABLE
        if not self._expected:
            self._compute_batch()
        self._finish_block()

    def _start_block(self) -> None:
        """Start the next block that has samples; blocks without any are committed at once."""
        self._begun = False  # of the block: earlier ones of the same teacher may still be computed by another writer
        self._expected: deque[int] = deque()
        while self._blocks and not self._expected:
            self._block, samples = self._blocks.popleft()
            self._expected.extend(np.flatnonzero(samples >= 0).tolist())
            self._status = np.zeros(len(samples), dtype=np.uint8)
            self._values = {
                spec.name: np.zeros((len(samples), *spec.shape), dtype=spec.dtype)
                for spec in self._shard.header.signals
            }
            if not self._expected:
                self._shard.commit(self._block, self._values, self._status)
        if not self._expected:
            self._shard.close()

    def _finish_block(self) -> None:
        if not self._expected:
            self._shard.commit(self._block, self._values, self._status)
            self._start_block()

    def _compute_batch(self) -> None:
        if not self._items:
            return
        for signal, rows in self._encode(self._items, self._ids).items():
            self._values[signal][self._rows] = rows
        self._status[self._rows] = PRESENT
        self._items, self._ids, self._rows = [], [], []
