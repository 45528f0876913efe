"""What one column lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdkit.core.data.index import SampleIndex
from kdkit.core.features.extract.endpoint_answers import has_signals
from kdkit.core.features.extract.shard_writer import Indices
from kdkit.core.features.extract.unreadable import Mask
from kdkit.core.features.store.column import Column


class ColumnPlan:
    """The pending blocks of a column's unfinished shards, and the samples of a new shard.

    Args:
        column: as it is now.
        index: all samples.
        again: (N,) images to try again although they could not be read.
        live: training samples are not stored.
        resume: finish interrupted shards.

    Attributes:
        resume: unfinished shards; (rows,) sample of each row to compute, -1 for the others.
        new: samples without a row, ascending.
    """

    def __init__(
        self, column: Column, index: SampleIndex, again: Mask, *, live: bool = False, resume: bool = True
    ) -> None:
        self.column = column
        # First: a block that another worker commits from here on has its samples here, and in no new shard.
        unfinished = column.pending() if resume else []
        keyed = enumerate(zip(index.ids, index.digests.tolist(), strict=True)) if unfinished else ()
        position = {key: i for i, key in keyed}
        self.resume: list[tuple[Path, Indices]] = []
        wanted = index.answered(held_out=live) & bool(column.signals) & has_signals(column, index)
        absent = wanted & (column.locate(index) < 0)
        missing = absent & (again | ~column.unreadable(index))
        for shard, blocks in unfinished:
            keys = zip(shard.ids, shard.digests.tolist(), strict=True)
            samples = np.fromiter((position.get(key, -1) for key in keys), np.int64, len(shard))
            pending = np.isin(np.arange(len(shard)) // shard.block_rows, blocks)
            samples[~pending | ((samples >= 0) & ~absent[samples])] = -1
            missing[samples[samples >= 0]] = False
            self.resume.append((shard.path, samples))
        self.new: Indices = np.flatnonzero(missing).astype(np.int64)
        self._ids = [index.ids[i] for i in self.new]
        self._digests: NDArray[np.uint64] = index.digests[self.new]

    @property
    def samples(self) -> Indices:
        """All samples to compute, those of unfinished shards first."""
        return np.concatenate([*(samples[samples >= 0] for _, samples in self.resume), self.new])

    @property
    def new_bytes(self) -> int:
        """Of the new shard on the disk."""
        return len(self.new) * (self.column.header.row_bytes + 64)

    def add_shard(self, block_rows: int) -> Path:
        """Make the shard of the new samples."""
        return self.column.add_shard(self._ids, self._digests, block_rows)
