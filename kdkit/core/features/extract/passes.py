"""Passes over the images: each image that any of several writers wants is decoded once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Sample
from kdkit.core.data.index import SampleIndex
from kdkit.core.features.extract.prefetch import Prepared, Work, prefetch
from kdkit.core.features.extract.preparation import Preparations
from kdkit.core.features.extract.shard_writer import Indices, ShardWriter

Taken = tuple[Sample, Sequence[ShardWriter]]
"""A sample, and the writers that want it."""


def run_pass(taken: Iterable[Taken], batch_size: int, threads: int) -> Iterator[int]:
    """Read each sample's image and give it to its writers; yields how many these are.

    Args:
        taken: read as far ahead as images are prepared.
        batch_size: samples per call of a teacher.
        threads: those that decode and preprocess.
    """
    waiting: deque[Taken] = deque()
    preparations = Preparations()

    def work() -> Iterator[Work]:
        for sample, writers in taken:
            waiting.append((sample, writers))
            yield sample, preparations.functions(sample, writers)

    with closing(prefetch(work(), threads, ahead=2 * batch_size)) as results:
        for result in results:
            sample, writers = waiting.popleft()
            _write(sample, writers, result)
            yield len(writers)


def samples_of(index: SampleIndex, writers: Sequence[ShardWriter]) -> Iterator[Taken]:
    """Each wanted sample with its writers, ascending; a single writer keeps its own order."""
    if len(writers) == 1:
        yield from ((index.samples[i], writers) for i in writers[0].wanted.tolist())
        return
    order = wanted_by(writers)
    members = [np.isin(order, writer.wanted).tolist() for writer in writers]
    for i, *flags in zip(order.tolist(), *members, strict=True):
        yield index.samples[i], [writer for writer, here in zip(writers, flags, strict=True) if here]


def wanted_by(writers: Sequence[ShardWriter]) -> Indices:
    """The samples that any of the writers wants, ascending."""
    return np.unique(np.concatenate([np.zeros(0, np.int64), *(writer.wanted for writer in writers)]))


def _write(sample: Sample, writers: Sequence[ShardWriter], result: Prepared) -> None:
    if isinstance(result, KdkitError):
        for writer in writers:
            writer.mark_unreadable()
    else:
        for writer, item in zip(writers, result, strict=True):
            writer.add(sample, item)
