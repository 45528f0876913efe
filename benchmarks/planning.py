"""What a dry run predicts, against the run itself: time, peak memory, disk.

    python benchmarks/planning.py [--epochs 6]

Each configuration is a project with the demo's student and two of its teachers, in a folder of its own. Processes of
their own run ``kdkit distill --dry-run --plan-for 1 --json``, then ``kdkit distill``. Time is that of training, from
the lineage; memory is the largest resident set of the process; disk is the largest size of the run's folder and the
version, sampled while it runs. Load on the machine between the two shows as error in time: the table has the load.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from projects import Size, demo_project, print_table

from kdkit.core.project.versions import Versions


@dataclass(frozen=True)
class Case:
    """A configuration: changes to the optimizer in registry.yaml, and the recipe."""

    name: str
    optimizer: str
    recipe: str = "kdkit"


CASES = (
    Case("kdkit, batches of 64", "batch_size: 64"),
    Case("kdkit, batches of 256", "batch_size: 256"),
    Case("kdkit, batches of 256 in micro-batches of 32", "batch_size: 256, micro_batch: 32"),
    Case("clip (no teacher), batches of 64", "batch_size: 64", "clip"),
)


@dataclass
class Measured:
    """Of one process."""

    output: str = ""
    peak: int = 0
    disk: int = 0


def main() -> None:
    """Predict, run, compare."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--epochs", type=int, default=6)
    options.add_argument("--train", type=int, default=300)
    given = options.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(CASES):
            root = Path(folder) / str(number)
            size = Size(train=given.train, calibration=40, test=20, epochs=given.epochs)
            domains, teachers = ("ct", "mri"), () if case.recipe == "clip" else ("demo-radio", "demo-tissue")
            demo_project(root, seed=0, size=size, domains=domains, teachers=teachers, recipe=case.recipe)
            registry = root / "registry.yaml"
            registry.write_text(registry.read_text().replace("batch_size: 64", case.optimizer))
            rows.append(compare(root, case))
    print_table(("configuration", "what", "predicted", "measured", "predicted / measured", "load"), rows_of(rows))


def compare(root: Path, case: Case) -> tuple[str, list[tuple[str, float, float]], float]:
    """(name, [(what, predicted, measured)], load average)."""
    planned = json.loads(measure(root, "distill", "--dry-run", "--plan-for", "1", "--cpu", "--json").output)
    estimate, forecast = planned["estimate"], planned["forecast"]
    done = measure(root, "distill", "--cpu")
    from kdkit.core.project.project import Project

    seconds = Versions(Project(root)).get().lineage.training.seconds
    figures = [
        ("time of a dry run's steps, s", estimate["seconds"], seconds),
        ("time of the forecast, s", forecast["training_seconds"], seconds),
        ("peak memory, MB", estimate["peak"] / 1e6, done.peak / 1e6),
        ("disk of the run, MB", estimate["disk"] / 1e6, done.disk / 1e6),
    ]
    return case.name, figures, os.getloadavg()[0]


def measure(root: Path, *arguments: str) -> Measured:
    """Run kdkit in a process of its own."""
    found, ended = Measured(), threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            found.disk = max(found.disk, size_of(root / ".kdkit" / "runs") + size_of(root / "versions"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        command = [sys.executable, "-m", "kdkit", *arguments]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as log:
            process = subprocess.Popen(command, cwd=root, stdout=out, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            log.seek(0)
            found.output = out.read().decode()
            if process.returncode:
                raise RuntimeError(log.read().decode()[-2000:])
        found.peak = usage.ru_maxrss * 1024
    finally:
        ended.set()
        watcher.join()
    return found


def size_of(folder: Path) -> int:
    """Bytes of all files, of those that stay while they are counted."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def rows_of(found: list[tuple[str, list[tuple[str, float, float]], float]]) -> list[list[str]]:
    return [
        [name, what, f"{predicted:.3g}", f"{measured:.3g}", f"{predicted / measured:.2f}", f"{load:.0f}"]
        for name, figures, load in found
        for what, predicted, measured in figures
    ]


if __name__ == "__main__":
    main()
