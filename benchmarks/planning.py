"""What dry runs predict, against the commands themselves: time, peak memory, disk.

    python benchmarks/planning.py [--only NUMBER,...] [--json FILE]

Each configuration is a project with two of the demo's teachers, in a folder of its own. Forks of this process call
``plan_extraction`` and ``extract``; then ``plan(plan_for=N)``, ``distill`` (in N processes), and the plan once more.
Predicted time is the mean of both plans. Measured: seconds of the extraction with the opening of the models, and of
training; the largest resident set of a process; the largest size of the run's folder and the version while it runs.
Predictions and runs share the machine with other jobs, so the table has the load.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from projects import Size, demo_project, print_table

from kdkit import Project
from kdkit.core.project.versions import Versions
from kdkit.plugins.demo.student import model_config

IMPORTED = ("accelerate", "open_clip", "torch._dynamo", "kdkit.core.distill.cost_estimate", "kdkit.core.distill.run",
            "kdkit.core.distill.forecast.extraction", "kdkit.api.student", "sklearn.metrics")  # fmt: skip
"""By this process, so that its forks need not."""


def larger() -> str:
    """A student of 12 million parameters, as ``config`` in registry.yaml."""
    config = model_config(256)
    vision = {"patch_size": 8, "width": 320, "layers": 6, "head_width": 64}
    config["vision_cfg"] = {"image_size": config["vision_cfg"]["image_size"], **vision}
    config["text_cfg"] |= {"width": 256, "heads": 4, "layers": 4}
    return json.dumps({"model_cfg": config})


@dataclass(frozen=True)
class Case:
    """A configuration: what registry.yaml has, and how many processes train."""

    name: str
    optimizer: str
    size: Size
    config: str = ""
    processes: int = 1
    extracted: bool = False


SMALL = Size(train=320, calibration=40, test=20, epochs=5)
CASES = (
    Case("small student, batches of 64", "batch_size: 64", SMALL, extracted=True),
    Case("small student, batches of 256 in parts of 32", "batch_size: 256, micro_batch: 32", SMALL),
    Case(
        "larger student, batches of 64", "batch_size: 64", Size(train=160, calibration=40, test=20, epochs=3), larger()
    ),
    Case("small student, batches of 64, 2 processes", "batch_size: 64", SMALL, processes=2),
)


@dataclass
class Measured:
    """Of a call in forks of this process: what the first returned, and the largest of all."""

    result: Any
    seconds: float
    peak: int
    disk: int


def main() -> None:
    """Predict, run, compare."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--only", default="", help="numbers of configurations, from 1")
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    chosen = [int(number) - 1 for number in given.only.split(",") if number] or range(len(CASES))
    torch.set_num_threads(1)
    for name in IMPORTED:
        importlib.import_module(name)
    rows = list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        for number in chosen:
            root = Path(folder) / str(number)
            forked(root, lambda root=root, case=CASES[number]: make(root, case))
            rows += compare(root, CASES[number])
            print_table(("configuration", "what", "predicted", "measured", "ratio", "load"), table(rows))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


def make(root: Path, case: Case) -> None:
    """The project of a configuration."""
    demo_project(root, seed=0, size=case.size, domains=("ct", "mri"), teachers=("demo-radio", "demo-tissue"))
    path = root / "registry.yaml"
    text = path.read_text(encoding="utf-8").replace("batch_size: 64", case.optimizer)
    config = f", config: {case.config}" if case.config else ""
    path.write_text(text.replace("demo-student}", f"demo-student{config}}}"), encoding="utf-8")


def compare(root: Path, case: Case) -> list[dict[str, Any]]:
    """A row per figure."""
    rows, count = [], case.processes
    planned = forked(root, lambda: Project(root).plan_extraction().to_json()) if case.extracted else None
    done = forked(root, lambda: len(Project(root).extract()))
    if planned is not None:
        costs = planned.result["teachers"]
        rows.append(row(case, "extraction, s", [sum(c["seconds"] for c in costs)], done.seconds))
        size = sum(path.stat().st_size for path in (root / "features").rglob("*.h5"))
        rows.append(row(case, "features, MB", [sum(c["bytes"] for c in costs) / 1e6], size / 1e6))

    def plan() -> Any:
        return Project(root).plan(plan_for=str(count), gpus=count, cpu=True).to_json()

    plans = [forked(root, plan).result]
    done = forked(root, lambda: Project(root).distill(cpu=True, checkpoint_every=5.0) and 0, processes=count)
    plans.append(forked(root, plan).result)
    from kdkit.core.project.project import Project as Folder

    seconds = Versions(Folder(root)).get().lineage.training.seconds
    estimates = [plan["estimate"] for plan in plans]
    if count == 1:
        rows.append(row(case, "training, estimate, s", [e["seconds"] for e in estimates], seconds))
    rows.append(row(case, "training, forecast, s", [p["forecast"]["training_seconds"] for p in plans], seconds))
    rows.append(row(case, "peak memory, MB", [e["peak"] / 1e6 for e in estimates], done.peak / 1e6))
    rows.append(row(case, "disk of the run, MB", [e["disk"] / 1e6 for e in estimates], done.disk / 1e6))
    return rows


def row(case: Case, what: str, predicted: Sequence[float], measured: float) -> dict[str, Any]:
    return {"case": case.name, "what": what, "predicted": list(predicted), "measured": measured,
            "load": os.getloadavg()[0]}  # fmt: skip


def forked(root: Path, call: Callable[[], Any], *, processes: int = 1) -> Measured:
    """Call in forks of this process, as ranks of one run."""
    disk, ended, variables = 0, threading.Event(), dict[str, str]()
    if processes > 1:
        with socket.create_server(("127.0.0.1", 0)) as free:
            variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        variables["WORLD_SIZE"] = str(processes)
    with tempfile.TemporaryDirectory() as place:
        begun, pids = time.monotonic(), list[int]()
        for rank in range(processes):
            pids.append(os.fork())
            if not pids[-1]:
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
                _call(call, {**variables, **own}, Path(place) / str(rank))

        def watch() -> None:
            nonlocal disk
            while not ended.wait(0.05):
                disk = max(disk, size_of(root / ".kdkit" / "runs") + size_of(root / "versions"))

        watcher = threading.Thread(target=watch)
        watcher.start()
        waited = [os.wait4(pid, 0) for pid in pids]
        seconds = time.monotonic() - begun
        ended.set()
        watcher.join()
        if any(status for _, status, _ in waited):
            raise RuntimeError("a fork has failed")
        result = json.loads((Path(place) / "0").read_text(encoding="utf-8"))
    return Measured(result, seconds, max(usage.ru_maxrss for *_, usage in waited) * 1024, disk)


def _call(call: Callable[[], Any], variables: dict[str, str], path: Path) -> None:
    """Write what a call returns, and end this process."""
    code = 1
    try:
        os.environ.update(variables)
        path.write_text(json.dumps(call()), encoding="utf-8")
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def size_of(folder: Path) -> int:
    """Bytes of all files, of those that stay while they are counted."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    found = []
    for one in rows:
        predicted = statistics.mean(one["predicted"])
        spread = f" ({min(one['predicted']):.3g} to {max(one['predicted']):.3g})" if len(one["predicted"]) > 1 else ""
        figures = [f"{predicted:.3g}{spread}", f"{one['measured']:.3g}", f"{predicted / one['measured']:.2f}"]
        found.append([one["case"], one["what"], *figures, f"{one['load']:.0f}"])
    return found


if __name__ == "__main__":
    main()
