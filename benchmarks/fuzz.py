"""Generated manifests, folders, question files, registries, images and archives: no internal error, no silent loss.

Each case writes a small project, reads it as ``kdkit data check`` does, and compares what went in with what came out:
rows in = rows used + rows that are counted or named. Half of the cases come from seeds, half from hypothesis, which
drives the same generators and shrinks a failure.

    python benchmarks/fuzz.py [--cases 2000] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.fuzz_archives import coco, dicom, npz, parquet, tar
from benchmarks.fuzz_inputs import folder, image, manifest, questions, registry
from kdkit.core.base.errors import KdkitError
from kdkit.core.data.check import check_data
from kdkit.core.project.project import Project

GENERATORS = {
    "manifests": manifest,
    "folders": folder,
    "question files": questions,
    "registries": registry,
    "images": image,
    "tar shards": tar,
    "Parquet": parquet,
    "arrays": npz,
    "DICOM": dicom,
    "COCO": coco,
}


class Outcome(NamedTuple):
    """``read``, ``refused`` (an error with a place and a remedy), ``lost`` or ``internal``."""

    status: str
    detail: str = ""


def run(kind: str, rng: random.Random) -> Outcome:
    """One case in a folder of its own."""
    with TemporaryDirectory(prefix="kdkit-fuzz-") as name:
        case = GENERATORS[kind](rng, Path(name))
        try:
            project = Project(Path(name))
            report = check_data(project)
            if case.rows is not None and case.used(project, report) != case.rows:
                return Outcome("lost", f"{case.rows} in, {case.used(project, report)} out")
            json.dumps(report.to_json(), ensure_ascii=False).encode()
            str(report)
        except KdkitError as error:
            silent = not (error.where and error.fix)
            return (
                Outcome("internal", f"{error.id} without a place or remedy") if silent else Outcome("refused", error.id)
            )
        except Exception as error:  # the point of the exercise
            return Outcome("internal", f"{type(error).__name__}: {error}")
        return Outcome("read")


def from_seeds(kind: str, count: int, first: int = 0) -> Counter[Outcome]:
    """Cases of the seeds ``first``, ``first + 1``, ..."""
    return Counter(run(kind, random.Random(f"{kind} {first + number}")) for number in range(count))


def from_hypothesis(kind: str, count: int, first: int = 0) -> Counter[Outcome]:
    """Cases of hypothesis, which looks for those that a seed rarely finds. The same in each run with one ``first``."""
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st

    found: Counter[Outcome] = Counter()

    @seed(first)
    @settings(
        max_examples=count, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.randoms(use_true_random=False))
    def each(rng: random.Random) -> None:
        found[run(kind, rng)] += 1

    each()
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    arguments = parser.parse_args()
    each, start, wrong = arguments.cases // (2 * len(GENERATORS)), time.monotonic(), Counter[Outcome]()
    print("| what | from | cases | read | refused | silent losses | internal errors |\n|---|---|---|---|---|---|---|")
    for kind in GENERATORS:
        for name, draw in (("seeds", from_seeds), ("hypothesis", from_hypothesis)):
            found = draw(kind, each, arguments.seed)
            count = Counter[str]()
            for outcome, number in found.items():
                count[outcome.status] += number
                if outcome.status in ("lost", "internal"):
                    wrong[outcome] += number
            row = (kind, name, count.total(), count["read"], count["refused"], count["lost"], count["internal"])
            print("|", " | ".join(map(str, row)), "|", flush=True)
    print(f"\n{time.monotonic() - start:.0f} s")
    for outcome, number in wrong.most_common():
        print(f"{number} x {outcome.status}: {outcome.detail[:300]}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
