"""The samples of a project in a fixed order, with their domains, labels and splits as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.base.journal import SampleKey
from kdkit.core.contracts import FINDINGS, SPLITS, Sample, Split, question_of


@dataclass(frozen=True, eq=False)
class SampleIndex:
    """N samples in the order of the registry's data entries, then of their sources.

    Attributes:
        samples: N samples.
        digests: (N,) uint64; changes when an image file's bytes, the text or ``extra`` change.
        may_skip: (N,) bool; True where the data entry says ``skip_unreadable``.
    """

    samples: tuple[Sample, ...]
    digests: NDArray[np.uint64]
    may_skip: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.samples)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(sample.id for sample in self.samples)

    def part(self, rows: NDArray[np.int64]) -> SampleIndex:
        """An index of the samples ``rows`` alone."""
        return SampleIndex(tuple(self.samples[row] for row in rows), self.digests[rows], self.may_skip[rows])

    def keyed(self, rows: Iterable[int]) -> list[tuple[SampleKey, Sample]]:
        """The samples of ``rows`` with their journal keys."""
        return [((self.ids[row], int(self.digests[row])), self.samples[row]) for row in rows]

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """All domains, sorted."""
        return tuple(sorted({sample.domain for sample in self.samples}))

    @cached_property
    def domain_index(self) -> NDArray[np.int64]:
        """(N,) position of each sample's domain in :attr:`domains`."""
        return _positions([sample.domain for sample in self.samples], self.domains)

    @cached_property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Domain -> its labels, sorted; empty for a domain without labels."""
        found: dict[str, set[str]] = {domain: set() for domain in self.domains}
        for sample in self.samples:
            if sample.label is not None:
                found[sample.domain].add(sample.label)
        return {domain: tuple(sorted(labels)) for domain, labels in found.items()}

    @cached_property
    def label_index(self) -> NDArray[np.int64]:
        """(N,) position of each sample's label in its domain's classes, -1 where it has none."""
        position = {(d, label): i for d, labels in self.classes.items() for i, label in enumerate(labels)}
        found = (-1 if s.label is None else position[s.domain, s.label] for s in self.samples)
        return np.fromiter(found, dtype=np.int64, count=len(self))

    @cached_property
    def findings(self) -> Mapping[str, tuple[str, ...]]:
        """Domain -> its findings, sorted, for domains whose samples may have several classes."""
        found: dict[str, set[str]] = {}
        for sample in self.samples:
            if FINDINGS in sample.extra:
                found.setdefault(sample.domain, set()).update(sample.extra[FINDINGS])
        return {domain: tuple(sorted(names)) for domain, names in found.items()}

    @cached_property
    def questions(self) -> tuple[str, ...]:
        """All questions of the samples' metadata, once each."""
        return tuple(dict.fromkeys(text for sample in self.samples if (text := question_of(sample))))

    @cached_property
    def split_index(self) -> NDArray[np.int64]:
        """(N,) position of each sample's split in :data:`kdkit.core.contracts.SPLITS`."""
        return _positions([sample.split for sample in self.samples], SPLITS)

    @cached_property
    def text_index(self) -> NDArray[np.int64]:
        """(N,) equal numbers for samples with equal texts; case, spaces and a final full stop do not count."""
        numbers: dict[str, int] = {}
        found = (numbers.setdefault(text_key(sample.text), len(numbers)) for sample in self.samples)
        return np.fromiter(found, dtype=np.int64, count=len(self))

    @cached_property
    def unanswered(self) -> NDArray[np.bool_]:
        """(N,) questions without an answer: samples with ``extra["messages"]`` and no text."""
        found = (not sample.text and bool(sample.extra.get("messages")) for sample in self.samples)
        return np.fromiter(found, dtype=bool, count=len(self))

    def answered(self, *, held_out: bool) -> NDArray[np.bool_]:
        """(N,) all samples except :attr:`unanswered`; with ``held_out`` only those of calibration and test."""
        return ~self.unanswered & (not held_out or self.split_index != SPLITS.index("train"))

    def select(
        self,
        split: Split | None = None,
        domains: Sequence[str] | None = None,
        labeled: bool | None = None,
    ) -> NDArray[np.int64]:
        """Ascending indices of the samples that meet all given conditions.

        Raises:
            KdkitError: the domain or split does not exist.
        """
        chosen = np.ones(len(self), dtype=bool)
        if split is not None:
            chosen &= self.split_index == _position(split, SPLITS, "split")
        if domains is not None:
            wanted = [_position(domain, self.domains, "domain") for domain in domains]
            chosen &= np.isin(self.domain_index, wanted)
        if labeled is not None:
            chosen &= (self.label_index >= 0) == labeled
        return np.flatnonzero(chosen).astype(np.int64)


def text_key(text: str) -> str:
    """Equal for equal texts; case, spaces and a final full stop do not count.

    Example:
        >>> text_key("A  Nodule.") == text_key("a nodule")
        True
    """
    return " ".join(text.casefold().split()).removesuffix(".")


def _positions(values: Sequence[str], among: Sequence[str]) -> NDArray[np.int64]:
    position = {value: i for i, value in enumerate(among)}
    return np.fromiter((position[value] for value in values), dtype=np.int64, count=len(values))


def _position(value: str, among: Sequence[str], kind: str) -> int:
    if value not in among:
        raise KdkitError("KD-DATA-013", f"no {kind} '{value}' in the data", fix=did_you_mean(value, tuple(among)))
    return among.index(value)
