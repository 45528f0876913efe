"""Time and memory of the index of samples, beside pyarrow's CSV reader on the same file.

    python benchmarks/sample_index.py --rows 1000000

The CSV has ids, captions, domains, labels, splits and groups of its rows. Its images are 2,000 files that rows share:
the listing is measured, not the hashing of a million files. Each step is a process of its own; times are seconds of
this process, without imports. Memory is the growth of its peak over a process that does the same on four rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

FILES = 2000
WORDS = ("opacity", "nodule", "effusion", "normal", "left", "right", "lung", "with", "small", "no", "acute", "change")
REGISTRY = "version: 1\ndata: [{source: csv, path: data/rows.csv}]\n"


def make(root: Path, rows: int) -> None:
    """A project whose manifest has changed some time ago."""
    (root / "data/images").mkdir(parents=True)
    for number in range(FILES):
        (root / f"data/images/{number:05d}.png").write_bytes(b"image %d" % number)
    with open(root / "data/rows.csv", "w", encoding="utf-8") as file:
        file.write("id,image,text,domain,label,split,group\n")
        for number in range(rows):
            words = " ".join(WORDS[(number >> shift) % len(WORDS)] for shift in range(0, 16, 2))
            split = ("train", "train", "train", "calibration", "test")[number % 5]
            file.write(
                f"sample-{number:08d},images/{number % FILES:05d}.png,"
                f'"{words}, number {number}",domain-{number % 9},class-{number % 7},{split},patient-{number // 4}\n'
            )
    (root / "registry.yaml").write_text(REGISTRY, encoding="utf-8")
    time.sleep(2.1)  # a file that has just changed is read again


def step(name: str, root: Path) -> None:
    """Runs in a process of its own; prints seconds of the clock, of the processor, and MiB at the peak."""
    import pyarrow.csv

    from kdkit.core.base.errors import KdkitError
    from kdkit.core.data import load_index
    from kdkit.core.data.entries import read_sources
    from kdkit.core.project.project import Project

    project = Project(root)
    assert project.registry.data
    assert project.catalogue.records

    def objects() -> object:
        from kdkit.plugins.sources.manifest import CsvManifest
        from kdkit.plugins.sources.rows import RowReader

        return list(RowReader.__iter__(CsvManifest(root / "data/rows.csv")))

    def arrays() -> object:
        index = load_index(project, verify=False)
        return index.select("train", labeled=True), index.text_index, index.classes, index.unanswered

    steps: dict[str, Callable[[], object]] = {
        "pyarrow": lambda: pyarrow.csv.read_csv(root / "data/rows.csv"),
        "objects": objects,
        "list": lambda: read_sources(project),
        "index": lambda: load_index(project),
        "open": lambda: load_index(project, verify=False),
        "verify": lambda: load_index(project),
        "arrays": arrays,
    }
    clock, processor = time.perf_counter(), time.process_time()
    try:
        kept = steps[name]()
    except KdkitError as error:
        raise SystemExit(str(error)) from None
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    print(json.dumps([clock, processor, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
    del kept


def measured(name: str, root: Path) -> tuple[float, float, float]:
    done = subprocess.run([sys.executable, __file__, "--step", name, str(root)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    clock, processor, peak = json.loads(done.stdout)
    return clock, processor, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--objects", action="store_true", help="also read the rows one by one, as Sample objects")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step(options.step[0], Path(options.step[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder, "large"), Path(folder, "small")
        make(large, options.rows)
        make(small, 4)
        print(f"{options.rows} rows, {(large / 'data/rows.csv').stat().st_size / 2**20:.0f} MiB")
        print(f"{'step':34s} {'s':>7s} {'CPU s':>7s} {'rows/CPU s':>11s} {'MiB':>6s}")
        for name, what in {
            "pyarrow": "pyarrow.csv.read_csv",
            "objects": "rows as Sample objects",
            "list": "read the source, no images",
            "index": "and the contents, first time",
            "open": "open, no look at the images",
            "verify": "open, images verified (stat)",
            "arrays": "open, and all arrays",
            "again": "pyarrow.csv.read_csv, again",
        }.items():
            if name == "objects" and not options.objects:
                continue
            which = "pyarrow" if name == "again" else name
            empty = measured(which, small)[2]
            clock, processor, peak = measured(which, large)
            rate = options.rows / processor
            print(f"{what:34s} {clock:7.2f} {processor:7.2f} {rate:11,.0f} {max(peak - empty, 0):6.0f}", flush=True)


if __name__ == "__main__":
    main()
