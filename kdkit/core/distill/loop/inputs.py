"""The student's inputs: images decoded and prepared in threads, and kept in memory.

Threads, not processes: Pillow decodes and resizes without the interpreter's lock, and so do torch's operations. A row
needs no copy between processes, the cache is one for all, and no worker has to open the data again.
``benchmarks/reading.py`` compares both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdkit.core.contracts import Sample, Student
from kdkit.core.data.images import decoding_threads, open_image
from kdkit.core.distill.loop.input_bytes import InputBytes
from kdkit.core.distill.loop.random_views import PLAIN, RandomViews
from kdkit.core.distill.plan.types import Indices
from kdkit.core.plugin_system.failures import plugin_errors

if TYPE_CHECKING:
    from kdkit.core.data import SampleIndex
    from kdkit.core.distill.loop.stored_inputs import StoredInputs

GIB = 2**30


Wanted = tuple[int, int]
"""A row of the index, and the number of its view."""


@dataclass(frozen=True)
class InputRows:
    """What a batch needs of the inputs.

    Attributes:
        indices: (B,) rows of the index.
        views: (B,) number of a random view, or ``PLAIN``; None: all are plain.
    """

    indices: Indices
    views: Indices | None = None

    def pairs(self) -> list[Wanted]:
        """Each row with its view."""
        views = [PLAIN] * len(self.indices) if self.views is None else self.views.tolist()
        return list(zip(self.indices.tolist(), views, strict=True))


class InputCache:
    """Student inputs, kept in memory up to ``budget`` bytes.

    A sample within the budget is decoded once per run, others each time. Images are kept as bytes where that loses
    nothing (:mod:`kdkit.core.distill.loop.input_bytes`).

    Args:
        student: prepares them.
        index: the samples.
        budget: bytes of memory.
        threads: that decode; by default :func:`~kdkit.core.data.images.decoding_threads`.
        stored: inputs on disk, which need no decoding and no memory.
        views: random views, for rows of which a batch asks one.
    """

    def __init__(
        self,
        student: Student,
        index: SampleIndex,
        *,
        budget: int = 2 * GIB,
        threads: int | None = None,
        stored: StoredInputs | None = None,
        views: RandomViews | None = None,
    ) -> None:
        self._stored, self._views = stored, views
        self._student, self._index = student, index
        self._budget = self._free = budget
        self._rows: dict[int, Mapping[str, Tensor]] = {}
        self._ahead: dict[Wanted, Future[Mapping[str, Tensor]]] = {}
        self._added: tuple[Sample, ...] = ()
        self._pool = ThreadPoolExecutor(threads or decoding_threads(), thread_name_prefix="decode")
        self._bytes: InputBytes | None = None
        self._lock = Lock()

    @property
    def used_bytes(self) -> int:
        """Memory of the inputs that are kept now."""
        return self._budget - self._free

    @property
    def samples(self) -> int:
        """Samples of the index."""
        return len(self._index)

    def add(self, samples: Sequence[Sample]) -> int:
        """Number ``samples`` after those of the index, instead of any added before; returns the first number."""
        first = len(self._index)
        self._ahead = {wanted: future for wanted, future in self._ahead.items() if wanted[0] < first}
        for number in [number for number in self._rows if number >= first]:
            self._free += _nbytes(self._rows.pop(number))
        self._added = tuple(samples)
        return first

    def ids(self, indices: Indices) -> list[str]:
        """Ids of the samples with these numbers."""
        return [self._sample(number).id for number in indices.tolist()]

    def batch(
        self, indices: Indices, views: Indices | None = None, upcoming: InputRows | None = None
    ) -> dict[str, Tensor]:
        """Stacked inputs (len(indices), ...).

        Args:
            indices, views: as of :class:`InputRows`.
            upcoming: rows of the next batch, whose decoding begins once these are decoded.

        Raises:
            UnreadableImage: with the sample's id.
            KdkitError: the student's plugin fails on a sample, with its id.
        """
        futures = [
            self._ahead.pop(one) if one in self._ahead else self._submit(one)
            for one in InputRows(indices, views).pairs()
        ]
        for one in () if upcoming is None else dict.fromkeys(upcoming.pairs()):
            if one not in self._ahead and (one[1] != PLAIN or one[0] not in self._rows):
                self._ahead[one] = self._submit(one)
        rows = [future.result() for future in futures]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def expected_bytes(self, indices: Indices) -> int:
        """Memory for the inputs of ``indices``, at most the budget; none for those on disk."""
        if self._stored is not None:
            indices = indices[[not self._stored.has(number) for number in indices.tolist()]]
        if not len(indices):
            return 0
        row = self._prepare(int(indices[0]))
        return min(self._budget, _nbytes(self._smaller(row, int(indices[0])) or row) * len(indices))

    def close(self) -> None:
        """Stop the decoding threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, wanted: Wanted) -> Future[Mapping[str, Tensor]]:
        return self._pool.submit(self._row, *wanted)

    def _sample(self, number: int) -> Sample:
        first = len(self._index)
        return self._index.samples[number] if number < first else self._added[number - first]

    def _row(self, number: int, view: int) -> Mapping[str, Tensor]:
        if view != PLAIN:
            return self._prepare(number, view)
        if self._stored is not None and self._stored.has(number):
            return self._stored.row(number)
        kept = self._rows.get(number)
        if kept is not None:
            return self._whole(kept)
        row = self._prepare(number)
        if self._free > 0:
            smaller = self._smaller(row, number) or row
            with self._lock:
                if number not in self._rows and self._free >= (size := _nbytes(smaller)):
                    self._free -= size
                    self._rows[number] = smaller
        return row

    def _prepare(self, number: int, view: int = PLAIN) -> Mapping[str, Tensor]:
        sample = self._sample(number)
        image = open_image(sample)
        if view != PLAIN:
            assert self._views is not None
            image = self._views.view(image, sample, view)
        with plugin_errors(f"the student failed on sample '{sample.id}'", self._student):
            return self._student.prepare(image, sample)

    def _smaller(self, row: Mapping[str, Tensor], number: int) -> Mapping[str, Tensor] | None:
        with self._lock:
            if self._bytes is None:
                self._bytes = InputBytes.of(self._student, self._sample(number))
        return self._bytes.encode(row)

    def _whole(self, row: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        assert self._bytes is not None
        stacked = {name: x[None] for name, x in row.items()}
        return {name: x[0] for name, x in self._bytes.decode(stacked).items()}


def _nbytes(row: Mapping[str, Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in row.values())
