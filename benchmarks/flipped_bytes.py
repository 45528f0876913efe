"""Every file of a toy project with one flipped bit, and every reading command on it.

Prints per kind of file how often the damage was reported, irrelevant (all results are the same), silent, or a crash:
``python benchmarks/flipped_bytes.py``.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from tests.flipped import EDITED, Flips
from tests.local_hub import local_hub
from tests.stock_checks import remembered_stock_checks


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--flips", type=int, default=3, help="per file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=0, help="files of each kind; 0: all")
    arguments = parser.parse_args()
    table: dict[str, Counter[str]] = defaultdict(Counter)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, local_hub(Path(folder) / "hub") as hub:
        room = Path(folder)
        with remembered_stock_checks(room / "checks"):
            _sweep(Flips(room, hub), arguments, table)
    print(f"{'files':<44} reported irrelevant silent crash")
    for kind, counts in sorted(table.items()):
        cells = " ".join(f"{counts[word]:>8}" for word in ("reported", "irrelevant", "silent", "crash"))
        print(f"{kind:<44} {cells}")


def _sweep(flips: Flips, arguments: argparse.Namespace, table: dict[str, Counter[str]]) -> None:
    """Flip bits of all files, or of some of each kind, and count the outcomes."""
    rng = random.Random(arguments.seed)
    pristine = flips.pristine
    names = sorted(p.relative_to(pristine).as_posix() for p in pristine.rglob("*") if p.stat().st_size and p.is_file())
    assert not [answer for answer in flips.usual.values() if isinstance(answer, Exception)]
    rng.shuffle(names)
    taken: Counter[str] = Counter()
    for number, name in enumerate(names):
        print(f"file {number + 1} of {len(names)}", file=sys.stderr, flush=True)
        kind = "written by the user" if name.startswith(EDITED) else _kind(name)
        taken[kind] += 1
        if arguments.most and taken[kind] > arguments.most:
            continue
        for _ in range(arguments.flips):
            place, bit = rng.randrange((pristine / name).stat().st_size), rng.randrange(8)
            found = flips.outcome(name, place, bit)
            table[kind][found] += 1
            if found in ("silent", "crash") and kind != "written by the user":
                print(f"{found}: {name}, byte {place}, bit {bit}", flush=True)


def _kind(name: str) -> str:
    """The file's name, without what differs between teachers, versions and pictures."""
    parts = Path(name)
    return f"images/*{parts.suffix}" if name.startswith("images/") else f"{parts.parts[0]}/.../{parts.name}"


if __name__ == "__main__":
    main()
