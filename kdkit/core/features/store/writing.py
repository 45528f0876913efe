"""One teacher's part of an extraction: items in, committed blocks out."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Sample, SignalSource
from kdkit.core.features.extract.encode import Encoder
from kdkit.core.features.store.shard import PRESENT, UNREADABLE, Shard

if TYPE_CHECKING:
    from PIL.Image import Image

Indices = NDArray[np.int64]
KEPT = "nothing of this block was stored; what was committed before is kept"


class ShardWriter:
    """Fills the uncommitted blocks of one shard.

    Samples come in the order of :attr:`wanted`. Batches never reach over the end of a block, so that a run
    that is resumed at a block computes the very batches of an uninterrupted one.

    Args:
        source: the teacher's signals.
        shard: open for writing.
        table_index: (rows of the shard,) the sample of each row, -1 where it is no longer in the table.
        batch_size: samples per call of ``source.compute``.
    """

    def __init__(self, source: SignalSource, shard: Shard, table_index: Indices, batch_size: int) -> None:
        self.source, self._shard, self._batch_size = source, shard, batch_size
        header = shard.header
        self._teacher = header.teacher
        self._encode = Encoder(source, header.teacher, header.signals, where=str(shard.path), kept=KEPT)
        self._blocks = deque((block, table_index[shard.rows_of(block)]) for block in shard.pending())
        self.wanted: Indices = np.concatenate(
            [np.zeros(0, dtype=np.int64), *(samples[samples >= 0] for _, samples in self._blocks)]
        )
        self._items: list[Any] = []
        self._samples: list[Sample] = []
        self._rows: list[int] = []
        self._begin()

    def prepare(self, image: Image, sample: Sample) -> Any:
        """The teacher's input; an error of its names it, since several share a pass."""
        try:
            return self.source.prepare(image, sample)
        except KdkitError as error:
            raise KdkitError(
                "KD-FEAT-019",
                f"teacher '{self._teacher}': {error.what}",
                where=error.where,
                why=error.why,
                fix=error.fix,
                code=error.code,
            ) from error

    def take(self, sample: Sample, item: Any) -> None:
        """The next sample, prepared."""
        self._items.append(item)
        self._samples.append(sample)
        self._rows.append(self._expected.popleft())
        if len(self._items) == self._batch_size or not self._expected:
            self._compute()
        self._end()

    def refuse(self) -> None:
        """The next sample's image is unreadable."""
        self._status[self._expected.popleft()] = UNREADABLE
        if not self._expected:
            self._compute()
        self._end()

    def _begin(self) -> None:
        """Make ready for the next block; commit at once those that no sample is left for."""
        self._encode.begin()
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

    def _end(self) -> None:
        if not self._expected:
            self._shard.commit(self._block, self._values, self._status)
            self._begin()

    def _compute(self) -> None:
        if not self._items:
            return
        for signal, rows in self._encode(self._items, [sample.id for sample in self._samples]).items():
            self._values[signal][self._rows] = rows
        self._status[self._rows] = PRESENT
        self._items, self._samples, self._rows = [], [], []
