"""Samples that share an image: leaks between splits, repetitions, contradictory labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from kdkit.core.contracts import SPLITS, Sample

Basis = Literal["file", "pixels", "group"]


class Decoded(NamedTuple):
    """A sample with at least one image that can be decoded, and the digests of all such images."""

    sample: Sample
    entry: int
    files: set[int]
    pixels: set[int]


@dataclass(frozen=True)
class Leak:
    """Samples of different splits that share an image or a group.

    ``same`` is ``file`` (equal bytes), ``pixels`` (equal once decoded) or ``group`` (one patient). The first ``ids``
    are one of each of the ``splits``, in their order.
    """

    same: Basis
    ids: tuple[str, ...]
    splits: tuple[str, ...]

    def __str__(self) -> str:
        more = len(self.ids) - len(self.splits)
        return " = ".join(
            f"{name} ({split})" for name, split in zip(self.ids, self.splits, strict=False)
        ) + f" = {more} more" * (more > 0)


@dataclass(frozen=True)
class Contradiction:
    """One image with several labels in a domain: the first sample of each label."""

    ids: tuple[str, ...]
    labels: tuple[str, ...]

    def __str__(self) -> str:
        return " = ".join(f"{name} ({label})" for name, label in zip(self.ids, self.labels, strict=True))


def find_leaks(decoded: Iterable[Decoded]) -> tuple[Leak, ...]:
    """Images and groups that span several splits, each once."""
    by_file, by_pixels, by_group = (defaultdict[object, list[Sample]](list) for _ in range(3))
    for sample, entry, files, pixels in decoded:
        for digest in files:
            by_file[digest].append(sample)
        for digest in pixels:
            by_pixels[digest].append(sample)
        if "group" in sample.extra:  # another data entry may use the same name for another patient
            by_group[entry, sample.extra["group"]].append(sample)
    same_file = _leaks_among("file", by_file)
    known = {leak.ids for leak in same_file}
    same_pixels = [leak for leak in _leaks_among("pixels", by_pixels) if leak.ids not in known]
    return (*same_file, *same_pixels, *_leaks_among("group", by_group))


def _leaks_among(same: Basis, groups: Mapping[object, Sequence[Sample]]) -> list[Leak]:
    leaks = []
    for found in groups.values():
        splits = tuple(split for split in SPLITS if any(s.split == split for s in found))
        if len(splits) > 1:
            first = [next(s for s in found if s.split == split) for split in splits]
            others = [s for s in found if all(s is not other for other in first)]
            leaks.append(Leak(same, tuple(s.id for s in (*first, *others)), splits))
    return list(dict.fromkeys(leaks))


def find_contradictions(decoded: Iterable[Decoded]) -> tuple[Contradiction, ...]:
    """Single images with several labels in one domain."""
    labels: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    for sample, _, _, pixels in decoded:
        if sample.label is not None and len(pixels) == 1 and not sample.extra.get("images"):
            labels[sample.domain, next(iter(pixels))].setdefault(sample.label, sample.id)
    return tuple(Contradiction(tuple(ids.values()), tuple(ids)) for ids in labels.values() if len(ids) > 1)


def count_repeated(decoded: Iterable[Decoded]) -> int:
    """Samples with an image that an earlier sample of their split has."""
    seen: set[tuple[str, int]] = set()
    count = 0
    for sample, _, _, pixels in decoded:
        own = {(sample.split, digest) for digest in pixels}
        count += not seen.isdisjoint(own)
        seen |= own
    return count
