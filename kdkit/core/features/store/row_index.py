"""Rows of a column by sample: 16 bytes a row in memory, and no Python object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from kdkit.core.features.store.shard import NO_ID, Shard

KEY_BYTES = 16
"""Memory of a row that may be found: the hash of its key, and its number."""
CHUNK = 65_536
"""Ids that are Python objects at one time."""
_MIX = np.uint64(0x9E3779B97F4A7C15)


class RowIndex:
    """Finds the row of a sample by its id and content digest, or by its digest alone in rows without an id.

    Rows are sorted by a hash of both; ids are read from the mapped shards and compared, so equal hashes do no harm.
    Samples in the order of their rows, the commonest case, are compared with the rows that follow and not searched.

    Args:
        shards: of the column.
        wanted: (rows,) rows that may be found. Of several rows with one id and digest, the last is.
    """

    def __init__(self, shards: Sequence[Shard], wanted: NDArray[np.bool_]) -> None:
        self._shards = tuple(shards)
        self._starts = np.cumsum([0, *(len(shard) for shard in shards)])
        self._wanted, self._rows = wanted, np.flatnonzero(wanted)
        keys = np.empty(len(self._rows), np.uint64)
        for shard, start in zip(self._shards, self._starts.tolist(), strict=False):
            first, last = np.searchsorted(self._rows, [start, start + len(shard)]).tolist()
            for begin in range(first, last, CHUNK):
                here = slice(begin, min(begin + CHUNK, last))
                rows = self._rows[here] - start
                keys[here] = _keys(shard.ids.encoded(rows), shard.digests[rows])
        order = np.argsort(keys, kind="stable")
        self._keys, self._rows = keys[order], self._rows[order]
        self._may_repeat = bool((self._keys[1:] == self._keys[:-1]).any())

    def find(self, ids: Iterable[str], digests: NDArray[np.uint64]) -> NDArray[np.int64]:
        """(N,) the row of each sample, -1 for none.

        Args:
            ids: N of them, read once.
            digests: (N,).
        """
        found = np.full(len(digests), -1, np.int64)
        if not len(self._rows):
            return found
        following = 0
        for start, part in _chunks(ids):
            here = slice(start, start + len(part))
            names, contents, rows = np.array(part, np.bytes_), digests[here], found[here]
            rows[:] = self._rows_in_order(names, contents, following)
            left = np.flatnonzero(rows < 0)
            rows[left] = self._rows_of(names[left], contents[left])
            absent = left[rows[left] < 0]
            if len(absent) and self._has_shared_rows:
                unnamed = np.full(len(absent), NO_ID.encode(), np.bytes_)
                rows[absent] = self._rows_of(unnamed, contents[absent])
            known = np.flatnonzero(rows >= 0)
            last, row = (int(known[-1]), int(rows[known[-1]])) if len(known) else (0, following)
            following = row + len(part) - last
        return found

    def _rows_in_order(
        self, names: NDArray[np.bytes_], digests: NDArray[np.uint64], following: int
    ) -> NDArray[np.int64]:
        """(n,) the rows from ``following`` on where they are those of the samples, else -1."""
        rows = np.arange(following, following + len(names))
        known = 0 if self._may_repeat else max(0, min(len(names), len(self._wanted) - following))
        stored_names, stored_digests = self._stored(rows[:known])
        same = (stored_names == names[:known]) & (stored_digests == digests[:known])
        rows[:known][~(same & self._wanted[rows[:known]])] = -1
        rows[known:] = -1
        return rows

    @property
    def _has_shared_rows(self) -> bool:
        return any(shard.ids.any_empty for shard in self._shards)

    def _rows_of(self, names: NDArray[np.bytes_], digests: NDArray[np.uint64]) -> NDArray[np.int64]:
        keys = _keys(names.tolist(), digests)
        place = np.searchsorted(self._keys, keys, side="right") - 1  # the last of equal keys
        found = np.full(len(names), -1, np.int64)
        left = np.flatnonzero((place >= 0) & (self._keys[place] == keys))
        while len(left):
            rows = self._rows[place[left]]
            stored_names, stored_digests = self._stored(rows)
            same = (stored_names == names[left]) & (stored_digests == digests[left])
            found[left[same]] = rows[same]
            left = left[~same]
            place[left] -= 1
            left = left[(place[left] >= 0) & (self._keys[place[left]] == keys[left])]
        return found

    def _stored(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.bytes_], NDArray[np.uint64]]:
        """Ids and digests of rows of any shard."""
        width = max(shard.ids.width for shard in self._shards)
        names, digests = np.empty(len(rows), f"S{width}"), np.empty(len(rows), np.uint64)
        shard_of = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(shard_of).tolist():
            here = np.flatnonzero(shard_of == number)
            local = rows[here] - self._starts[number]
            names[here] = self._shards[number].ids.names[local]
            digests[here] = self._shards[number].digests[local]
        return names, digests


def _keys(names: Iterable[bytes], digests: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash of (id, digest); of this process alone, because Python's differs from run to run."""
    hashes = np.fromiter(map(hash, names), np.int64, len(digests)).view(np.uint64)
    mixed: NDArray[np.uint64] = (digests * _MIX) ^ hashes
    return mixed


def _chunks(ids: Iterable[str]) -> Iterator[tuple[int, list[bytes]]]:
    """(position of the first, ids in UTF-8)."""
    start, part = 0, list[bytes]()
    for name in ids:
        part.append(name.encode())
        if len(part) == CHUNK:
            yield start, part
            start, part = start + CHUNK, []
    if part:
        yield start, part
