"""A teacher that computes its signals during training: the rows that its column would hold, without storing them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.threads import usable_processors
from kdkit.core.contracts import SPLITS, Sample
from kdkit.core.data.images import UnreadableImage
from kdkit.core.distill.loop.distributed import TIMEOUT, get_rank, get_world_size
from kdkit.core.distill.plan.types import Indices
from kdkit.core.features.extract.encode import Encoder
from kdkit.core.features.extract.prefetch import Prepare, prefetch

if TYPE_CHECKING:
    from PIL.Image import Image

    from kdkit.core.data import SampleIndex
    from kdkit.core.teachers import OpenTeacher

Array = np.ndarray[Any, Any]
MICRO_BATCH = 16
"""Samples per forward pass: a live teacher's activations share the device with the student's."""


class LiveTeacher:
    """Rows of one teacher, computed on request.

    The last request is cached, so the signals of a batch, requested one by one, cost one forward pass. A row depends
    only on the rows of the same request, so a resumed run gets those of an uninterrupted one. (The last bit may depend
    on the batch, here as in an extraction with another batch size.)

    It draws no random numbers: a teacher is in eval mode, and locking refuses one whose rows differ between two passes.

    Args:
        opened: in eval mode, without gradients.
        index: row numbers are those of its samples.
        unreadable: (N,) unreadable images to skip.
        device: for its computations.
        offload: keep its weights on the CPU except while it computes.
    """

    def __init__(
        self,
        opened: OpenTeacher,
        index: SampleIndex,
        unreadable: Array | None,
        *,
        device: torch.device,
        offload: bool = False,
    ) -> None:
        self.name, self.signals = opened.name, opened.signals.signals
        self.offload, self._device, self._index = offload, device, index
        has = (index.split_index == SPLITS.index("train")) & ~index.unanswered
        if unreadable is not None:
            has &= ~unreadable
        self.rows: Indices = np.where(has, np.arange(len(index)), -1)
        self._model = opened.model if isinstance(opened.model, nn.Module) else None
        if self._model is not None:
            self._model.to("cpu")
        self._encode: Encoder | None = Encoder(opened.signals, opened.name, self.signals)
        self._cached: dict[bytes, Mapping[str, Array]] = {}
        self._lock = RLock()  # the loader's thread requests rows, and the loop's own answers
        self._group: Any = None

    @property
    def nbytes(self) -> int:
        """Bytes of its parameters."""
        return sum(p.numel() * p.element_size() for p in self._model.parameters()) if self._model is not None else 0

    def join_process_group(self) -> None:
        """From now on each rank computes a shard of every request; a collective call.

        Shards are exchanged on the CPU in a group of their own, because the loader's thread requests rows.
        """
        if get_world_size() > 1:
            self._group = dist.new_group(backend="gloo", timeout=TIMEOUT)

    def gather(self, signal: str, rows: Indices) -> Array:
        """(len(rows), *shape) as :meth:`kdkit.core.features.Column.gather`; rows are numbers of index samples.

        Raises:
            KdkitError: an unreadable image; a signal that its column would refuse.
        """
        key = rows.tobytes()
        with self._lock:
            if key not in self._cached:
                self.prefetch([rows])
            return self._cached[key][signal]

    def prefetch(self, batches: Sequence[Indices]) -> None:
        """Compute several requests while the weights are on the device; drops all cached ones."""
        with self._lock, self._on_device():
            self._cached = {}
            for rows in batches:
                self._cached[rows.tobytes()] = self._shared(rows)

    def score(self, samples: Sequence[Sample]) -> list[Mapping[str, Array] | KdkitError]:
        """The rows of samples that are not in the index, such as those with other answers; on this rank alone.

        Returns:
            Signal -> its row, per sample, or why the teacher cannot read its answer.

        Raises:
            KdkitError: an unreadable image; a signal that a column would refuse.
        """
        with self._lock, self._on_device():
            encode, found = self._begin(), list[Mapping[str, Array] | KdkitError]()
            for part, items in _prepared(samples, partial(_prepare_or_refuse, encode)):
                usable = [number for number, item in enumerate(items) if not isinstance(item, KdkitError)]
                rows = encode([items[n] for n in usable], [part[n].id for n in usable]) if usable else {}
                made = {n: {name: x[place] for name, x in rows.items()} for place, n in enumerate(usable)}
                found += [made.get(number, item) for number, item in enumerate(items)]
            return found

    def close(self) -> None:
        """Release the model; no rows can be requested afterwards."""
        self._model, self._encode, self._cached = None, None, {}

    def _shared(self, rows: Indices) -> dict[str, Array]:
        if self._group is None:
            return self._compute(rows)
        shards: list[Any] = [None] * get_world_size()
        dist.all_gather_object(shards, self._compute(np.array_split(rows, len(shards))[get_rank()]), group=self._group)
        return {spec.name: np.concatenate([shard[spec.name] for shard in shards]) for spec in self.signals}

    def _compute(self, rows: Indices) -> dict[str, Array]:
        encode = self._begin()
        samples = [self._index.samples[row] for row in rows]
        parts = [encode(items, [sample.id for sample in part]) for part, items in _prepared(samples, encode.prepare)]
        empty = {spec.name: np.zeros((0, *spec.shape), spec.dtype) for spec in self.signals}
        return {name: np.concatenate([none, *(part[name] for part in parts)]) for name, none in empty.items()}

    def _begin(self) -> Encoder:
        assert self._encode is not None, "the teacher was closed"
        self._encode.begin()
        return self._encode

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """The model on its device; an offloaded one returns to its unchanged CPU tensors afterwards."""
        if self._model is None:
            yield
            return
        if not self.offload:
            self._model.to(self._device)
            yield
            return
        tensors = [*self._model.parameters(), *self._model.buffers()]
        on_cpu = [x.data for x in tensors]
        try:
            for x in tensors:
                x.data = x.data.to(self._device)
            yield
        finally:
            for x, data in zip(tensors, on_cpu, strict=True):
                x.data = data


def _require_readable(item: Any) -> Any:
    if isinstance(item, KdkitError):
        raise item
    return item[0]


def _prepared(samples: Sequence[Sample], prepare: Prepare) -> Iterator[tuple[Sequence[Sample], list[Any]]]:
    """Parts of ``MICRO_BATCH`` samples, with what ``prepare`` makes of each."""
    work = [(sample, [prepare]) for sample in samples]
    with closing(prefetch(work, min(4, usable_processors()), ahead=2 * MICRO_BATCH)) as prepared:
        for start in range(0, len(samples), MICRO_BATCH):
            part = samples[start : start + MICRO_BATCH]
            yield part, [_require_readable(next(prepared)) for _ in part]


def _prepare_or_refuse(encode: Encoder, image: Image, sample: Sample) -> Any:
    """The teacher's input, or why it has none. A broken plugin is an error."""
    try:
        return encode.prepare(image, sample)
    except KdkitError as error:
        if isinstance(error, UnreadableImage) or error.code is ExitCode.PLUGIN:
            raise
        return error
