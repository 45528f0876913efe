"""Teachers that tell what they held likely in their own answers, and of no other text: models behind a server.

Their column holds rows of pseudo-labels that they gave. What was told with an answer lies beside the column, with the
answer; an extraction hands it to the teacher, which makes signals of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.journal import Journal
from kdkit.core.contracts import OWN_ANSWERS, TELLS, TOLD, Sample, SignalSource, SignalSpec

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from kdkit.core.data.index import SampleIndex
    from kdkit.core.features.store.column import Column

PSEUDO_LABELS = "pseudo-labels.jsonl"
"""Journal of answers to questions of the training split, beside the column."""
Told = Mapping[tuple[str, str], Mapping[str, Any]]
"""(Question's sample id, answer) -> what the teacher keeps of it."""


def tells_own_answers(parts: Mapping[str, str]) -> bool:
    """Whether an identity, or the parts of a fingerprint, are of such a teacher."""
    return parts.get(TELLS) == OWN_ANSWERS


def tellable(column: Column, table: SampleIndex) -> NDArray[np.bool_]:
    """(N,) samples that the column's teacher can say something about: all, or of one that only tells of its own
    answers those that are such answers, unchanged, and came with what it tells."""
    if not tells_own_answers(column.header.parts):
        return np.ones(len(table), dtype=bool)
    told = read_told(column.folder)
    return np.array([_key(sample, column.teacher, column.fingerprint) in told for sample in table.samples], dtype=bool)


def read_told(folder: Path) -> Told:
    """What lies beside a column; of an answer that was given twice, the last."""
    values = ((entry.key[0], entry.value) for entry in Journal(folder / PSEUDO_LABELS).read_all())
    return {(id, value["answer"].strip()): value["told"] for id, value in values if "told" in value}


def _key(sample: Sample, teacher: str, fingerprint: str) -> tuple[str, str] | None:
    about = sample.extra.get("pseudo")
    if not isinstance(about, Mapping) or (about.get("teacher"), about.get("fingerprint")) != (teacher, fingerprint):
        return None
    return str(about.get("sample")), sample.text


class OfOwnAnswers:
    """A ``contracts.SignalSource`` whose samples carry what was told: ``source`` finds it in ``extra[TOLD]``."""

    def __init__(self, source: SignalSource, column: Column) -> None:
        self._source, self._told = source, read_told(column.folder)
        self._teacher, self._fingerprint = column.teacher, column.fingerprint

    @property
    def signals(self) -> tuple[SignalSpec, ...]:
        return self._source.signals

    def identity(self) -> Mapping[str, str]:
        return self._source.identity()

    def prepare(self, image: Image, sample: Sample) -> Any:
        told = self._told.get(_key(sample, self._teacher, self._fingerprint) or ("", ""))
        return self._source.prepare(image, replace(sample, extra={**sample.extra, TOLD: told}))

    def compute(self, items: Sequence[Any]) -> Mapping[str, Tensor]:
        return self._source.compute(items)


def source_of(source: SignalSource, column: Column) -> SignalSource:
    """``source``, with what was told where it needs that."""
    return OfOwnAnswers(source, column) if tells_own_answers(column.header.parts) else source
