"""Features that are on the disk alone: random order and block order against one sequential read of the same files.

    python benchmarks/block_order.py [--samples 40000] [--rounds 5]

Teachers and signals as in ``feature_store.py``. Each pass reads every sample once, in batches of 256, from files that
were dropped from the page cache. kdkit compares each block with its checksum when it first reads it; ``checked`` is a
pass after that, also from the disk. The contenders take turns; figures are median ratios of the rounds. Ranks: blocks
that each of two processes reads in a pass, with ``sampling.ranges`` 1 and 2.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from feature_store import BATCH, SIGNALS, TEACHERS, make_column
from numpy.typing import NDArray

from kdkit.core.distill.loop.sampler import BatchSampler
from kdkit.core.distill.plan.types import SamplePool
from kdkit.core.features import FeatureStore
from kdkit.core.features.store import shard
from kdkit.core.features.store.shard import BLOCK_ROWS

CHUNK = 1 << 20
AROUND = 128
"""Rows of 1 KiB that Linux reads at once where a mapped page is not in memory."""
Batches = Sequence[NDArray[np.int64]]
Times = NDArray[np.float64]


def main() -> None:
    """Write the files, take turns, print."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--samples", type=int, default=40_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--folder", help="on the disk to measure; default: that of temporary files")
    given = options.parse_args()
    orders = {name: batches_of(given.samples, blocks=name == "block order") for name in ("block order", "random order")}
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        folder = Path(place)
        for teacher in range(TEACHERS):
            make_column(folder, teacher, given.samples, 1)
        contenders: dict[str, Callable[[], Times]] = {"sequential read": lambda: read_all(folder)}
        for name, batches in orders.items():
            contenders[f"np.memmap, {name}"] = lambda batches=batches: gather(folder, batches, raw=True)
            contenders[f"kdkit, {name}"] = lambda batches=batches: gather(folder, batches)
            contenders[f"kdkit, {name}, checked"] = lambda batches=batches: gather(folder, batches, checked=True)
        seconds: dict[str, list[Times]] = {name: [] for name in contenders}
        for number in range(given.rounds):
            for name in list(contenders)[:: 1 if number % 2 else -1]:
                drop(folder)
                seconds[name].append(contenders[name]())
        size = sum(path.stat().st_size for path in folder.rglob("shard-*.h5"))
    report(seconds, size, given)
    print("read from the disk in a pass over 1,000 blocks, with memory for 128 of them:")
    for name in orders:
        batches = batches_of(1000 * BLOCK_ROWS, blocks=name == "block order")
        parts = loads(batches, AROUND, 128 * BLOCK_ROWS // AROUND)
        print(f"{name:32} {parts * AROUND / (1000 * BLOCK_ROWS):.2f} times the store")
    for ranges in (1, 2):
        counts = " and ".join(str(blocks_read(given.samples, ranges, rank)) for rank in range(2))
        print(f"blocks that two processes read, ranges: {ranges}: {counts} of {-(-given.samples // BLOCK_ROWS)}")


def batches_of(samples: int, *, blocks: bool, ranges: int = 1) -> Batches:
    """One pass."""
    pool = SamplePool(np.arange(samples), np.zeros(samples, np.int64), blocks=blocks, ranges=ranges)
    sampler = BatchSampler([pool], batch_size=BATCH, steps=samples // BATCH, seed=0)
    return [sampler[step] for step in range(len(sampler))]


def loads(batches: Batches, rows: int, capacity: int) -> int:
    """Parts of ``rows`` rows that come from the disk, if memory holds the ``capacity`` parts that were used last."""
    held: OrderedDict[int, None] = OrderedDict()
    count = 0
    for batch in batches:
        for part in np.unique(batch // rows).tolist():
            if part in held:
                held.move_to_end(part)
                continue
            count += 1
            held[part] = None
            if len(held) > capacity:
                held.popitem(last=False)
    return count


def drop(folder: Path) -> None:
    """Drop all files from the page cache; nothing may be mapped."""
    gc.collect()
    for path in folder.rglob("shard-*.h5"):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def now() -> Times:
    """Seconds of the clock, and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def read_all(folder: Path) -> Times:
    """Times to read all files from beginning to end."""
    begun = now()
    for path in sorted(folder.rglob("shard-*.h5")):
        with open(path, "rb", buffering=0) as file:
            while file.read(CHUNK):
                pass
    return now() - begun


def gather(folder: Path, batches: Batches, *, raw: bool = False, checked: bool = False) -> Times:
    """Times to gather the batches of all teachers."""
    store = FeatureStore(folder)
    columns = [store.column(name) for name in store.teachers]
    arrays = [column.shards[0].arrays[signal] for column in columns for signal in SIGNALS]
    for state in shard._CHECKED.values():
        state[:] = shard._INTACT if checked else shard._UNKNOWN
    begun = now()
    for rows in batches:
        if raw:
            found: list[Any] = [array.take(rows, axis=0) for array in arrays]
        else:
            found = [column.gather(signal, rows) for column in columns for signal in SIGNALS]
        del found
    return now() - begun


def blocks_read(samples: int, ranges: int, rank: int) -> int:
    """Blocks with a row of the rank's half of a batch."""
    halves = [np.split(batch, 2)[rank] for batch in batches_of(samples, blocks=True, ranges=ranges)]
    return len(np.unique(np.concatenate(halves) // BLOCK_ROWS))


def report(seconds: dict[str, list[Times]], size: int, given: argparse.Namespace) -> None:
    """Median speeds, and ratios to the sequential read of the same round."""
    print(f"{given.samples} samples, {size / 1e6:.0f} MB, load {os.getloadavg()[0]:.0f}")
    base = seconds["sequential read"]
    for name, times in seconds.items():
        ratios = [a[0] / b[0] for a, b in zip(base, times, strict=True)]
        clock, processor = np.median(times, axis=0)
        print(f"{name:32} {size / 1e6 / clock:8.0f} MB/s  {statistics.median(ratios):.2f} x "
              f"({min(ratios):.2f} to {max(ratios):.2f}), processor {processor * 1e9 / size:.2f} s/GB")  # fmt: skip


if __name__ == "__main__":
    main()
