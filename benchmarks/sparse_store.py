"""A column of many million rows in a sparse file: time to open it, to find rows and to gather, and memory.

    python benchmarks/sparse_store.py [--rows 10000000] [--width 512]

The features are a hole in the file that reads as zeros, so a column of hundreds of gigabytes fits a small disk; ids,
digests and checksums are real. What a disk would add is not measured. The baseline finds rows by a Python dictionary,
as kdkit did before; it runs for at most ``MOST_IN_A_DICT`` rows.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
from numpy.typing import NDArray

from kdkit.core.contracts import SignalSpec
from kdkit.core.features.store.header import Header
from kdkit.core.features.store.row_index import RowIndex
from kdkit.core.features.store.shard import BLOCK_ROWS, PRESENT, Shard, _checksum, _write_empty

BATCH, BATCHES, CHUNK = 256, 50, 1_000_000
MOST_IN_A_DICT = 4_000_000


def main() -> None:
    """Make the file, measure, print."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rows", type=int, default=10_000_000)
    options.add_argument("--width", type=int, default=512)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard-0000.h5"
        begun = time.perf_counter()
        make_sparse(path, given.rows, given.width)
        size = path.stat()
        found: dict[str, Any] = {"rows": given.rows, "make_seconds": time.perf_counter() - begun}
        found |= {"file_GB": size.st_size / 1e9, "on_disk_GB": size.st_blocks * 512 / 1e9}
        with measured(found, "open"):
            shard = Shard(path)
        wanted = np.ones(len(shard), bool)
        with measured(found, "index"):
            index = RowIndex([shard], wanted)
        rng = np.random.default_rng(0)
        rows = rng.integers(0, given.rows, 100_000)
        with measured(found, "find_100000"):
            rows_found = index.find([name_of(row) for row in rows.tolist()], rows.astype(np.uint64))
        assert (rows_found == rows).all()
        found["first_gather_samples_per_s"] = gather(shard, rng, first=True)
        found["gather_samples_per_s"] = gather(shard, rng, first=False)
        del index
        if given.rows <= MOST_IN_A_DICT:
            with measured(found, "dictionary"):
                known = {key: row for row, key in enumerate(zip(shard.ids, shard.digests.tolist(), strict=True))}
            del known
    print(json.dumps(found, indent=2))


def name_of(row: int) -> str:
    return f"sample-{row:010d}"


def make_sparse(path: Path, rows: int, width: int) -> None:
    """A complete shard whose features were never written."""
    header = Header("sparse", "0" * 64, {}, (SignalSpec("image", (width,)),))
    names = [name_of(row) for row in range(rows)]
    _write_empty(path, header, names, np.arange(rows, dtype=np.uint64), BLOCK_ROWS)
    del names
    with h5py.File(path, "r+") as file:
        for start in range(0, rows, CHUNK):
            file["status"][start : start + CHUNK] = PRESENT
        blocks = len(file["committed"])
        file["committed"][...] = np.ones(blocks, np.uint8)
        zeros = np.zeros((BLOCK_ROWS, width), np.float16)
        whole = _checksum([zeros], np.full(BLOCK_ROWS, PRESENT, np.uint8))
        file["checksums"][...] = np.tile(np.frombuffer(whole, np.uint8), (blocks, 1))
        if rest := rows % BLOCK_ROWS:
            last = _checksum([zeros[:rest]], np.full(rest, PRESENT, np.uint8))
            file["checksums"][blocks - 1] = np.frombuffer(last, np.uint8)


def gather(shard: Shard, rng: np.random.Generator, *, first: bool) -> float:
    """Samples per second of random batches; the first time, each block is compared with its checksum."""
    rows = [rng.integers(0, len(shard), BATCH) for _ in range(BATCHES)]

    def read(batch: NDArray[np.int64]) -> None:
        shard.require_intact(batch)
        shard.arrays["image"].take(batch, 0)

    if not first:
        for batch in rows:
            read(batch)
    begun = time.perf_counter()
    for batch in rows:
        read(batch)
    return BATCH * BATCHES / (time.perf_counter() - begun)


@contextmanager
def measured(found: dict[str, Any], name: str) -> Iterator[None]:
    """Seconds, and what the process holds more afterwards without mapped files."""
    gc.collect()
    process = psutil.Process()
    before, begun = anonymous(process), time.perf_counter()
    yield
    found[f"{name}_seconds"] = time.perf_counter() - begun
    gc.collect()
    found[f"{name}_MB"] = (anonymous(process) - before) / 1e6


def anonymous(process: psutil.Process) -> int:
    """Resident bytes that belong to no file."""
    memory = process.memory_info()
    return int(memory.rss - memory.shared)


if __name__ == "__main__":
    main()
