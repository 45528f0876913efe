"""Pictures of different splits that are nearly the same: copies in other sizes or compressions, mirrored or turned.

Two images are compared by their perceptual hashes (:func:`~kdkit.core.data.image_facts.perceptual_hash`). Candidates
share one of 16 words of 16 bits (banding; Indyk and Motwani 1998): of copies at a distance of at most 32 this finds
more than 98 %. ``docs/explanation/data-check.md`` has the measurements behind the thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdkit.core.data.check.examined import Examined
from kdkit.core.data.check.finding import SHOWN, Finding
from kdkit.core.data.check.pictures import FLAT
from kdkit.core.data.image_facts import LOW, ORDER, WORDS
from kdkit.core.data.names import count_of, name_some

DISTANCE = 24
"""Different bits of 255, at most, of what counts as a copy."""
SIMILAR = 16
"""Above that, at most, for pictures that are worth a look."""
TAIL = 2.0
"""Pairs that are near, relative to those that likeness explains, up to which none counts as a copy."""
BLOCK = 1 << 21
"""Pairs that are compared at once."""
Pairs = NDArray[np.int64]
_ONES = np.array([bin(word).count("1") for word in range(1 << 16)], dtype=np.uint8)


@dataclass(frozen=True)
class NearDuplicate:
    """Two samples of different splits whose pictures differ in ``distance`` of 255 bits; ``how`` the second is one of
    ``same``, ``mirrored``, ``upside down`` and ``turned by 180 degrees``."""

    ids: tuple[str, str]
    splits: tuple[str, str]
    distance: int
    how: str

    def __str__(self) -> str:
        (a, b), (first, second) = self.ids, self.splits
        how = "" if self.how == "same" else f" {self.how}"
        return f"{a} ({first}) = {b} ({second}){how} [distance {self.distance}]"


def _mask(columns: bool, rows: bool) -> NDArray[np.uint16]:
    """Bits of the hash that a mirrored picture has the other way round: those of odd frequencies."""
    odd = np.arange(LOW) % 2 == 1
    bits = ((odd[None, :] & columns) ^ (odd[:, None] & rows)).ravel()[ORDER]
    return np.packbits(bits, bitorder="little").view("<u2")


MIRRORS = {
    "same": _mask(False, False),
    "mirrored": _mask(True, False),
    "upside down": _mask(False, True),
    "turned by 180 degrees": _mask(True, True),
}
"""How a copy is turned -> (16,) uint16, the bits that this reverses."""


def find_near(
    hashes: NDArray[np.uint16], kinds: NDArray[np.int64], mask: NDArray[np.uint16], limit: int
) -> tuple[Pairs, NDArray[np.int64]]:
    """Pairs of images of different kinds whose hashes are near; one of them is compared through ``mask``.

    Args:
        hashes: (M, 16).
        kinds: (M,) number of each image's split.
        mask: (16,) of :data:`MIRRORS`.
        limit: largest distance.

    Returns:
        (K, 2) positions, ascending, the first one smaller, and (K,) distances.
    """
    found: list[NDArray[np.int64]] = [np.zeros((0, 3), dtype=np.int64)]
    for word in range(WORDS):
        for left, right in _equal_pairs(hashes[:, word], hashes[:, word] ^ mask[word]):
            keep = (left < right) & (kinds[left] != kinds[right])
            left, right = left[keep], right[keep]
            differs = hashes[left] ^ hashes[right] ^ mask
            distance = _ONES[differs].sum(axis=1, dtype=np.int64)
            near = (distance <= limit) & differs[:, :word].all(axis=1)  # each pair at its first equal word
            found.append(np.stack([left[near], right[near], distance[near]], axis=1))
    unique = np.unique(np.concatenate(found), axis=0)
    return unique[:, :2], unique[:, 2]


def _equal_pairs(left: NDArray[Any], right: NDArray[Any]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Positions (i, j) with ``left[i] == right[j]``, in blocks."""
    order = np.argsort(right, kind="stable")
    first, last = (np.searchsorted(right[order], left, side=side) for side in ("left", "right"))
    counts = last - first
    ends, start = np.cumsum(counts), 0
    while start < len(left):
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + BLOCK, side="right")))
        size = counts[start:end]
        rows = np.repeat(np.arange(start, end), size)
        offsets = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        yield rows, order[first[rows] + offsets]
        start = end


def check_near_duplicates(data: Examined, distance: int = DISTANCE) -> Iterator[Finding]:
    """Copies across splits (a problem), and similar pictures across splits (a note); the items are
    :class:`NearDuplicate`. Images with equal pixels are leaks already; pictures of one gray are left out. In a domain
    whose pictures are alike anyway (:func:`expected_pairs`), near ones are similar and no copies."""
    if distance < 0:
        yield Finding("near-duplicates", "skipped", "switched off")
        return
    facts, pairs = data.images.facts, data.pairs
    rows, places = pairs[:, 0], pairs[:, 1]
    shown = facts["contrast"][places] >= FLAT
    rows, places = rows[shown], places[shown]
    kinds = np.stack([facts["digest"][places], data.split[rows].astype(np.uint64)], axis=1)
    members = np.sort(np.unique(kinds, axis=0, return_index=True)[1])  # a picture once per split, however often used
    digests, hashes, row_of = kinds[members, 0], facts["hash"][places[members]], rows[members]
    splits = data.split[row_of]
    found: dict[tuple[int, int], tuple[int, str]] = {}
    for how, mask in MIRRORS.items():
        for (a, b), count in zip(*find_near(hashes, splits, mask, distance + SIMILAR), strict=True):
            if digests[a] != digests[b]:
                key = (int(row_of[a]), int(row_of[b]))
                found[key] = min(found.get(key, (1 << 16, "")), (int(count), how))
    domains: dict[str, list[int]] = {}
    for (row, _), (count, _) in found.items():
        domains.setdefault(data.samples[row].domain, []).append(count)
    alike = {name: near for name, counts in domains.items() if (near := _alike(np.array(counts), distance))}
    copies = {
        key: value for key, value in found.items() if value[0] <= distance and data.samples[key[0]].domain not in alike
    }
    others = {key: value for key, value in found.items() if key not in copies}
    if alike:
        named = ", ".join(f"{name} ({near} pairs within {distance} bits)" for name, near in sorted(alike.items()))
        yield Finding(
            "near-duplicates", "note", f"pictures of different splits are so alike that copies cannot be told: {named}"
        )
    if copies:
        yield _finding(data, copies, "problem", "near-duplicate", "between splits")
    if others:
        yield _finding(data, others, "note", "similar pair", "of pictures in different splits")


def expected_pairs(distances: NDArray[np.int64], limit: int) -> float:
    """Pairs within ``limit`` that likeness alone explains, from those just above it.

    The two halves of the ring up to ``limit + SIMILAR`` have n and m pairs. Likeness makes ever fewer pairs at smaller
    distances: with the ratio r = n / m of one half to the next, n (r + r^2 + ...) = n r / (1 - r) lie within. Copies
    are no tail: with r >= 1 the ring is made of copies too, and nothing is explained.

    Example:
        >>> expected_pairs(np.array([20] * 7 + [30] * 10 + [40] * 20), 24)
        10.0
        >>> expected_pairs(np.array([10, 20, 30]), 24)
        0.0
    """
    inner, outer = (
        int(((distances > low) & (distances <= low + SIMILAR // 2)).sum()) for low in (limit, limit + SIMILAR // 2)
    )
    return inner * (inner / outer) / (1 - inner / outer) if inner < outer else 0.0


def _alike(distances: NDArray[np.int64], limit: int) -> int:
    """The number of pairs within ``limit``, if likeness explains half of them or more; else 0."""
    near = int((distances <= limit).sum())
    return near if near <= TAIL * expected_pairs(distances, limit) else 0


def _finding(
    data: Examined, found: dict[tuple[int, int], tuple[int, str]], level: Any, what: str, where: str
) -> Finding:
    ordered = sorted(found.items(), key=lambda item: (item[1][0], item[0]))
    items = []
    for (a, b), (distance, how) in ordered:
        one, other = data.samples[a], data.samples[b]
        items.append(NearDuplicate((one.id, other.id), (one.split, other.split), distance, how))
    lines = tuple(map(str, items))
    text = f"{count_of(items, what)} {where}: {name_some(lines)}"
    details = lines[3:SHOWN] if level == "problem" else ()
    return Finding("near-duplicates", level, text, tuple(items), details, tuple(key for key, _ in ordered), lines)
