"""Samples are found by id and digest as in a dictionary of all rows, in a tenth of the memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kdkit.core.contracts import SignalSpec
from kdkit.core.features.store import row_index
from kdkit.core.features.store.header import Header
from kdkit.core.features.store.row_index import RowIndex
from kdkit.core.features.store.shard import NO_ID, Shard
from kdkit.core.features.store.store import FeatureStore

Keys = list[tuple[str, int]]


def opened(folder: Path, *parts: Keys) -> tuple[Shard, ...]:
    """A column with one shard for each part."""
    header = Header("radio", "0" * 64, {}, (SignalSpec("image", (2,)),))
    for keys in parts:
        column = FeatureStore(folder).create(header)
        column.add_shard([name for name, _ in keys], np.array([digest for _, digest in keys], np.uint64))
    return FeatureStore(folder).column("radio").shards


def expected(parts: tuple[Keys, ...], wanted: NDArray[np.bool_], samples: Keys) -> list[int]:
    """By a dictionary; of equal keys the last row counts."""
    rows = {key: row for row, key in enumerate(key for keys in parts for key in keys) if wanted[row]}
    return [rows.get(key, rows.get((NO_ID, key[1]), -1)) for key in samples]


def find(shards: tuple[Shard, ...], wanted: NDArray[np.bool_], samples: Keys) -> list[int]:
    digests = np.array([digest for _, digest in samples], np.uint64)
    return list(map(int, RowIndex(shards, wanted).find([name for name, _ in samples], digests)))


@pytest.mark.parametrize("hashes", ["own", "all equal"])
def test_rows_are_those_of_a_dictionary(tmp_path: Path, hashes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over shards and chunks, with repeated ids, repeated digests, rows without an id, and colliding hashes."""
    monkeypatch.setattr(row_index, "CHUNK", 7)
    if hashes == "all equal":
        monkeypatch.setattr(row_index, "_keys", lambda _, digests: np.zeros(len(digests), np.uint64))
    rng = np.random.default_rng(0)

    def keys(count: int) -> Keys:
        names = [NO_ID if rng.random() < 0.2 else f"sämple {rng.integers(20)}" for _ in range(count)]
        return [(name, int(digest) | 2**63) for name, digest in zip(names, rng.integers(10, size=count), strict=True)]

    parts = (keys(30), keys(1), keys(41))
    wanted = rng.random(72) < 0.7
    samples = [("a longer id than any in the shards", 2**63 + 3), *keys(60), *parts[0]]
    samples = [(name or "x", digest) for name, digest in samples]
    shards = opened(tmp_path, *parts)
    assert find(shards, wanted, samples) == expected(parts, wanted, samples)
    assert find(shards, np.zeros(72, bool), samples) == [-1] * len(samples)


def test_samples_in_the_order_of_rows_are_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that changed, have no row or come from elsewhere are, and none finds a row that is not wanted."""
    monkeypatch.setattr(row_index, "CHUNK", 7)
    keys: Keys = [(f"sample {number}", number) for number in range(40)]
    wanted = np.arange(40) % 13 != 5
    samples = [*keys[:12], ("sample 12", 0), *keys[13:28], *keys[31:], *keys[3:5], ("another", 1)]
    shards = opened(tmp_path, keys[:17], keys[17:])
    searched, rows_of = list[str](), RowIndex._rows_of

    def search(self: RowIndex, names: NDArray[np.bytes_], digests: NDArray[np.uint64]) -> NDArray[np.int64]:
        searched.extend(map(str, names.tolist()))
        return rows_of(self, names, digests)

    monkeypatch.setattr(RowIndex, "_rows_of", search)
    assert find(shards, wanted, samples) == expected((keys,), wanted, samples)
    assert len(searched) < len(samples) / 2


def test_ids_are_texts_of_the_mapped_file(tmp_path: Path) -> None:
    names = ["a", "bß", "", "d" * 40]
    (shard,) = opened(tmp_path, [(name, number) for number, name in enumerate(names)])
    assert shard.ids == names
    assert list(shard.ids[1:3]) == names[1:3]
    assert shard.ids[-1] == "d" * 40
    assert shard.ids != names[:-1]
    base: Any = shard.ids.names
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert not base.flags.writeable


def test_memory_of_an_index_is_16_bytes_a_row(tmp_path: Path) -> None:
    import tracemalloc

    count = 200_000
    shards = opened(tmp_path, [(f"sample-{i:08d}", i) for i in range(count)])
    wanted = np.ones(count, bool)
    tracemalloc.start()
    index = RowIndex(shards, wanted)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 17 * count
    digests = np.array([5, count - 1], np.uint64)
    samples = SimpleNamespace(ids=["sample-00000005", "sample-00199999"])
    assert index.find(samples.ids, digests).tolist() == [5, count - 1]
