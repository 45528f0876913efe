"""Signals of teachers behind an endpoint: they exist only for the teacher's own answers.

A server returns log-probabilities with its answer and for no other text. Pseudo-labeling keeps them in a journal beside
the column. When such an answer has become a sample, extraction passes them to the teacher, which computes signals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.journal import Journal
from kdkit.core.contracts import LOGPROBS, OWN_ANSWERS, TOP_LOGPROBS, Sample, SignalSource, SignalSpec

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from kdkit.core.data.index import SampleIndex
    from kdkit.core.features.store.column import Column

PSEUDO_LABELS = "pseudo-labels.jsonl"
"""Journal of answers to questions of the training split, beside the column."""


def only_own_answers(identity: Mapping[str, str]) -> bool:
    """Whether a teacher (by its identity, or the parts of its fingerprint) has signals for its own answers only."""
    return identity.get(LOGPROBS) == OWN_ANSWERS


def has_signals(column: Column, index: SampleIndex) -> NDArray[np.bool_]:
    """(N,) samples for which the column's teacher has signals: all, or its own unchanged answers with logprobs."""
    if not only_own_answers(column.header.parts):
        return np.ones(len(index), dtype=bool)
    known = read_top_logprobs(column.folder)
    found = np.zeros(len(index), dtype=bool)
    for row in index.rows_with("pseudo"):
        found[row] = _key(index.samples[row], column.teacher, column.fingerprint) in known
    return found


def read_top_logprobs(folder: Path) -> dict[tuple[str, str], Mapping[str, Any]]:
    """(Id of the question's sample, answer) -> ``top_logprobs``, from the journal beside a column."""
    values = ((entry.key[0], entry.value) for entry in Journal(folder / PSEUDO_LABELS).read_all())
    return {(id, value["answer"].strip()): value[TOP_LOGPROBS] for id, value in values if TOP_LOGPROBS in value}


def _key(sample: Sample, teacher: str, fingerprint: str) -> tuple[str, str]:
    """Of the teacher's answer that the sample's text is; a key that no journal has for other samples."""
    label = sample.extra.get("pseudo")
    if not isinstance(label, Mapping) or (label.get("teacher"), label.get("fingerprint")) != (teacher, fingerprint):
        return "", ""
    return str(label.get("sample")), sample.text


class OwnAnswerSource:
    """A ``contracts.SignalSource`` that adds :data:`TOP_LOGPROBS` to the samples that ``source`` prepares."""

    def __init__(self, source: SignalSource, column: Column) -> None:
        self._source, self._top_logprobs = source, read_top_logprobs(column.folder)
        self._teacher, self._fingerprint = column.teacher, column.fingerprint

    @property
    def signals(self) -> tuple[SignalSpec, ...]:
        return self._source.signals

    def identity(self) -> Mapping[str, str]:
        return self._source.identity()

    def prepare(self, image: Image, sample: Sample) -> Any:
        found = self._top_logprobs.get(_key(sample, self._teacher, self._fingerprint))
        return self._source.prepare(image, replace(sample, extra={**sample.extra, TOP_LOGPROBS: found}))

    def compute(self, items: Sequence[Any]) -> Mapping[str, Tensor]:
        return self._source.compute(items)


def with_top_logprobs(source: SignalSource, column: Column) -> SignalSource:
    """``source``, with log-probabilities of its own answers if it needs them."""
    return OwnAnswerSource(source, column) if only_own_answers(column.header.parts) else source
