"""Teachers that take the same inputs: their images are prepared once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kdkit.core.contracts import PREPROCESSING, Sample, SignalSource
from kdkit.core.data.images import UnreadableImage, open_image
from kdkit.core.features.extract.prefetch import Prepare
from kdkit.core.features.extract.shard_writer import ShardWriter
from kdkit.core.teachers.signals import DualEncoderSignals

Key = tuple[type, str]


class Preparations:
    """The functions that prepare samples for writers, the same one for dual encoders with equal preprocessing.

    Two teachers share a function if their models have the same class, state the same preprocessing in their identity,
    and gave equal inputs for the first sample that both want.
    """

    def __init__(self) -> None:
        self._keys: dict[int, Key | None] = {}
        self._equal: dict[tuple[int, int], bool] = {}

    def functions(self, sample: Sample, writers: Sequence[ShardWriter]) -> list[Prepare]:
        """One function per writer; equal ones need one call."""
        first: dict[Key, ShardWriter] = {}
        found = list[Prepare]()
        for writer in writers:
            key = self._key(writer.source)
            leader = writer if key is None else first.setdefault(key, writer)
            found.append(leader.prepare if self._same(leader, writer, sample) else writer.prepare)
        return found

    def _key(self, source: SignalSource) -> Key | None:
        if id(source) not in self._keys:
            self._keys[id(source)] = _preparation(source)
        return self._keys[id(source)]

    def _same(self, one: ShardWriter, other: ShardWriter, sample: Sample) -> bool:
        pair = id(one.source), id(other.source)
        if pair[0] == pair[1]:
            return True
        if pair not in self._equal:
            try:
                image = open_image(sample)
            except UnreadableImage:
                return False
            (pixels, _), (others, _) = (writer.prepare(image, sample) for writer in (one, other))
            self._equal[pair] = pixels.dtype == others.dtype and torch.equal(pixels, others)
        return self._equal[pair]


def _preparation(source: SignalSource) -> Key | None:
    """What the inputs depend on besides the sample; None if that is not known."""
    if type(source) is not DualEncoderSignals:
        return None
    stated = source.identity().get(PREPROCESSING, "")
    return (type(source.model), stated) if stated else None
