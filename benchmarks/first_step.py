"""Seconds from the start of ``kdkit distill`` to its first step when everything is cached.

    python benchmarks/first_step.py --rows 1000000

The samples are rows of a CSV that share 2,000 pictures. Two teachers have imported features of every row (64 numbers
for its image, 64 for its text, float16). The student is the demo's. The first run measures trust and fills the caches;
it ends at its first step, as do the later ones. Each run is a process of its own; imports count.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from kdkit.core.contracts import Silent
from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.project.project import Project

FILES, DOMAINS, CLASSES, WIDTH = 2000, 9, 7, 64
SPLITS = ("train", *["train"] * 97, "calibration", "test")
REGISTRY = """\
version: 1
student: {family: demo-student}
data: [{source: csv, path: data/rows.csv}]
"""


class _FirstStepError(BaseException):
    """Ends a run."""


class _UntilFirstStep(Silent):
    """Ends the run at the first step, and says when each kind of work began."""

    def __init__(self, begun: float) -> None:
        self._begun, self._label = begun, ""

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG002
        if label != self._label:
            self._label = label
            print(f"  {time.time() - self._begun:7.1f} s: {label}", flush=True)
        if label == "distill" and done:
            raise _FirstStepError


def make(root: Path, rows: int) -> None:
    """A project with features of two teachers."""
    rng = np.random.default_rng(0)
    (root / "data/images").mkdir(parents=True)
    for number in range(FILES):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"data/images/{number:05d}.png")
    with open(root / "data/rows.csv", "w", encoding="utf-8") as file:
        file.write("id,image,text,domain,label,split\n")
        for number in range(rows):
            domain, label = number % DOMAINS, number // DOMAINS % CLASSES
            file.write(
                f"s{number:08d},images/{number % FILES:05d}.png,finding {label} of organ {domain},"
                f"domain-{domain},class-{label},{SPLITS[number % len(SPLITS)]}\n"
            )
    (root / "registry.yaml").write_text(REGISTRY, encoding="utf-8")
    (root / "ids.txt").write_text("".join(f"s{number:08d}\n" for number in range(rows)), encoding="utf-8")
    numbers = np.arange(rows)
    known = numbers % DOMAINS * CLASSES + numbers // DOMAINS % CLASSES
    for name in ("first", "second"):
        centers = rng.normal(size=(DOMAINS * CLASSES, WIDTH)).astype(np.float16)
        np.save(root / "text.npy", centers[known])
        noise = rng.normal(size=(rows, WIDTH)).astype(np.float16)
        np.save(root / "image.npy", centers[known] + noise)
        command = ["features", "import", name, "--from", "image.npy", "--ids", "ids.txt", "--text", "text.npy"]
        subprocess.run([sys.executable, "-m", "kdkit", *command, "--license", "mit"], cwd=root, check=True)


def main() -> None:
    """Make the project, run, print."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--child", type=float, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        try:
            distill(Project(Path()), Options(cpu=True, restart=True), reporter=_UntilFirstStep(given.child))
        except _FirstStepError:
            print(f"  {time.time() - given.child:7.1f} s: the first step is done")
        return
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), given.rows)
        time.sleep(2.1)  # a file that has just changed is read again
        for run in range(1 + given.runs):
            print(f"run {run}" + ("" if run else ", which fills the caches"), flush=True)
            subprocess.run(
                [sys.executable, str(Path(__file__).resolve()), "--child", str(time.time())], cwd=folder, check=True
            )


if __name__ == "__main__":
    main()
