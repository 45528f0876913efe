"""Random batches out of the feature store, against a raw memory map and against h5py's fancy indexing.

    python benchmarks/feature_store.py [--samples 20000] [--batches 900] [--shards 1]

Five teachers x (image, text) x 512 fp16, batches of 256 random rows. The contenders read the same values (this is
checked first) and take turns, so that whatever else the machine does hits all of them alike; every figure is the
median over the batches with the quartiles beside it. Files are in the page cache, where they are after one epoch; how
they were written does not matter, because all of them are dropped from it and read again before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from kdkit.core.contracts import SignalSpec
from kdkit.core.features import Column, FeatureStore, Header
from kdkit.core.features.store.shard import PRESENT, Shard

TEACHERS, WIDTH, BATCH = 5, 512, 256
SIGNALS = ("image", "text")
SLOW = "h5py fancy indexing"
Reader = Callable[[NDArray[np.int64]], list[NDArray[Any]]]


def main() -> None:
    """Make the files, check that all contenders agree, time them, print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--samples", type=int, default=20_000)
    options.add_argument("--batches", type=int, default=900)
    options.add_argument("--shards", type=int, default=1)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for teacher in range(TEACHERS):
            make_raw(Path(folder), make_column(Path(folder), teacher, given.samples, given.shards))
        read_again(Path(folder))
        store = FeatureStore(Path(folder))
        columns = [store.column(name) for name in store.teachers]
        raw = [[np.load(raw_path(Path(folder), c, s), mmap_mode="r") for s in SIGNALS] for c in columns]
        contenders: dict[str, Reader] = {
            "raw np.memmap take": lambda rows: [array.take(rows, axis=0) for pair in raw for array in pair],
            "kdkit Column.gather": lambda rows: [c.gather(s, rows) for c in columns for s in SIGNALS],
        }
        if given.shards == 1:
            files = [h5py.File(column.shards[0].path, "r") for column in columns]
            contenders[SLOW] = lambda rows: fancy(files, rows)
        rng = np.random.default_rng(0)
        check(contenders, rng.integers(0, given.samples, BATCH))
        rates = measure(contenders, rng, given.samples, given.batches)
    report(rates, given)


def make_column(folder: Path, teacher: int, samples: int, shards: int) -> Column:
    """A column of random features."""
    name = f"teacher-{teacher}"
    specs = tuple(SignalSpec(signal, (WIDTH,)) for signal in SIGNALS)
    store = FeatureStore(folder)
    rng = np.random.default_rng(teacher)
    for part in np.array_split(np.arange(samples), shards):
        column = store.create(Header(name, sha256(name.encode()).hexdigest(), {}, specs))
        shard = Shard(column.add_shard([f"s{i}" for i in part], part.astype(np.uint64), 4096), writable=True)
        for block in shard.pending():
            rows = shard.rows_of(block)
            size = rows.stop - rows.start
            values = {s: rng.standard_normal((size, WIDTH), np.float32).astype(np.float16) for s in SIGNALS}
            shard.commit(block, values, np.full(size, PRESENT, np.uint8))
    return store.column(name)


def make_raw(folder: Path, column: Column) -> None:
    """The same values in plain .npy files."""
    for signal in SIGNALS:
        np.save(raw_path(folder, column, signal), column.gather(signal, np.arange(len(column))))


def raw_path(folder: Path, column: Column, signal: str) -> Path:
    return folder / f"{column.teacher}-{signal}.npy"


def read_again(folder: Path) -> None:
    """Bring all files from the disk into the page cache in the same way. None may be mapped: it would stay."""
    for path in folder.rglob("*.*"):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while file.read(1 << 20):
                pass


def fancy(files: list[h5py.File], rows: NDArray[np.int64]) -> list[NDArray[Any]]:
    """h5py wants indices ascending and without repetition."""
    unique, back = np.unique(rows, return_inverse=True)
    return [file[f"signals/{signal}"][unique][back] for file in files for signal in SIGNALS]


def check(contenders: dict[str, Reader], rows: NDArray[np.int64]) -> None:
    """All contenders must give equal bytes."""
    expected, *others = [reader(rows) for reader in contenders.values()]
    for other in others:
        for a, b in zip(expected, other, strict=True):
            np.testing.assert_array_equal(a, b)


def measure(
    contenders: dict[str, Reader], rng: np.random.Generator, samples: int, batches: int
) -> dict[str, list[float]]:
    """Samples per second of each contender in each batch.

    They take turns, first and second equally often. The slow one takes part in every tenth turn: it leaves the
    processor's caches cold, which in every turn would be timed as the cost of the next one.
    """
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    quick = [name for name in contenders if name != SLOW]
    for turn in range(batches):
        rows = rng.integers(0, samples, BATCH)
        for name in [*(quick if turn % 2 else reversed(quick)), *([SLOW] if turn % 10 == 0 else [])]:
            if name in contenders:
                start = time.perf_counter()
                contenders[name](rows)
                rates[name].append(BATCH / (time.perf_counter() - start))
    return rates


def report(rates: dict[str, list[float]], given: argparse.Namespace) -> None:
    """Medians, quartiles, and kdkit's median as a multiple of each contender's."""
    ours = rates["kdkit Column.gather"]
    lines = {}
    for name, values in rates.items():
        low, _, high = statistics.quantiles(values, n=4)
        ratio = statistics.median(ours) / statistics.median(values)
        lines[name] = {"samples_per_s": statistics.median(values), "low": low, "high": high, "kdkit_is": ratio}
    if given.json:
        print(json.dumps({"samples": given.samples, "shards": given.shards, "contenders": lines}, indent=2))
        return
    print(f"{given.samples} samples, {given.shards} shard(s), {TEACHERS} teachers x 2 x {WIDTH} fp16, batch {BATCH}")
    for name, line in lines.items():
        print(
            f"{name:22} {line['samples_per_s']:>11,.0f} samples/s  [{line['low']:,.0f} .. {line['high']:,.0f}]"
            f"  kdkit is {line['kdkit_is']:.2f} x"
        )


if __name__ == "__main__":
    main()
