"""Samples that share an image or a group: leaks between splits, repetitions, contradictory labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kdkit.core.contracts import SPLITS
from kdkit.core.data.check.examined import Examined
from kdkit.core.data.check.finding import SHOWN, Finding
from kdkit.core.data.digests import file_digests, stamp_of
from kdkit.core.data.names import count_of, name_some

Basis = Literal["file", "pixels", "group"]
_WORDS: Mapping[Basis, str] = {"file": "the same file", "pixels": "the same pixels", "group": "one group"}


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


def check_leaks(data: Examined) -> Iterator[Finding]:
    """Images and groups that span several splits, each once; the items are :class:`Leak`."""
    by_file, by_pixels, by_group = (defaultdict[object, list[int]](list) for _ in range(3))
    files = _file_digests(data)
    for (row, place), digest in zip(data.pairs.tolist(), data.images.facts["digest"][data.pairs[:, 1]], strict=True):
        if place in files:
            by_file[files[place]].append(row)
        by_pixels[int(digest)].append(row)
    for row in dict.fromkeys(data.pairs[:, 0].tolist()):
        group = data.samples[row].extra.get("group")
        if group is not None:  # another data entry may use the same name for another patient
            by_group[int(data.entry[row]), group].append(row)
    found = {"file": _leaks_among(data, by_file)}
    known = set(found["file"])
    found["pixels"] = [rows for rows in _leaks_among(data, by_pixels) if rows not in known]
    found["group"] = _leaks_among(data, by_group)
    for same, words in _WORDS.items():
        leaks = [_leak(data, same, rows) for rows in found[same]]
        if leaks:
            text = f"{count_of(leaks, 'leak')} between splits, {words}: {name_some(map(str, leaks))}"
            yield Finding(
                "leaks", "problem", text, tuple(leaks), tuple(map(str, leaks[3:SHOWN])),
                tuple(rows[:4] for rows in found[same]), tuple(map(str, leaks)),
            )  # fmt: skip


def _file_digests(data: Examined) -> dict[int, int]:
    """Position of an image that can be decoded -> digest of its bytes; once for several ways to decode it."""
    paths = {place: path for (path, _), place in data.images.places.items() if place not in data.images.reasons}
    once = list(dict.fromkeys(paths.values()))
    values = file_digests(data.project.state).get([(path, stamp_of(path)) for path in once], data.reporter)
    digests = {path: value for path, value in zip(once, values, strict=True) if isinstance(value, int)}
    return {place: digests[path] for place, path in paths.items() if path in digests}


def _leaks_among(data: Examined, groups: Mapping[object, Sequence[int]]) -> list[tuple[int, ...]]:
    """Rows of each group that spans splits: the first of each split, then the others."""
    leaks = []
    for found in groups.values():
        rows = list(dict.fromkeys(found))
        splits = {data.samples[row].split for row in rows}
        if len(splits) > 1:
            first = [
                next(row for row in rows if data.samples[row].split == split) for split in SPLITS if split in splits
            ]
            leaks.append((*first, *(row for row in rows if row not in first)))
    return list(dict.fromkeys(leaks))


def _leak(data: Examined, same: Basis, rows: Sequence[int]) -> Leak:
    splits = {data.samples[row].split for row in rows}
    return Leak(same, tuple(data.samples[row].id for row in rows), tuple(s for s in SPLITS if s in splits))


def check_contradictions(data: Examined) -> Iterator[Finding]:
    """Single images with several labels in one domain; the items are :class:`Contradiction`."""
    labels: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
    for (row, _), digest in zip(data.pairs.tolist(), data.images.facts["digest"][data.pairs[:, 1]], strict=True):
        sample = data.samples[row]
        if sample.label is not None and not sample.extra.get("images"):
            labels[sample.domain, int(digest)].setdefault(sample.label, row)
    several = [rows for rows in labels.values() if len(rows) > 1]
    found = [Contradiction(tuple(data.samples[row].id for row in rows.values()), tuple(rows)) for rows in several]
    if found:
        text = f"{count_of(found, 'image')} with several labels: {name_some(map(str, found))}"
        groups = tuple(tuple(rows.values()) for rows in several)
        yield Finding(
            "contradictions", "problem", text, tuple(found), tuple(map(str, found[3:SHOWN])), groups,
            tuple(map(str, found)),
        )  # fmt: skip


def check_repeated(data: Examined) -> Iterator[Finding]:
    """Samples with an image that an earlier sample of their split has; the item is their number."""
    seen: dict[tuple[str, int], int] = {}
    repeated: dict[int, int] = {}
    for (row, _), digest in zip(data.pairs.tolist(), data.images.facts["digest"][data.pairs[:, 1]], strict=True):
        first = seen.setdefault((data.samples[row].split, int(digest)), row)
        if first != row:
            repeated.setdefault(row, first)
    if repeated:
        text = f"samples whose image occurs before in the same split: {len(repeated)}"
        yield Finding("repeated", "note", text, (len(repeated),), groups=tuple((b, a) for a, b in repeated.items()))
