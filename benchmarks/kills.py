"""Kill commands at file operations and at random moments, run each once more, and compare with an uninterrupted run.

    nice python benchmarks/kills.py --kills 300 --seed 0

Prints a row per command: kills, kills that came too late, retries whose tree of files (without times) or exit code is
another one than without a kill. Then every difference.
"""

from __future__ import annotations

import argparse
import importlib
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from kdkit.core.base.result import Table, text_table
from tests.kills import COMMANDS, Sweep
from tests.warm_python import LIBRARIES


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end early after so many seconds")
    options = parser.parse_args()
    draw, begun = random.Random(options.seed), time.monotonic()
    kills, late, wrong, problems = Counter[str](), Counter[str](), Counter[str](), list[str]()
    for name in LIBRARIES:  # the commands are forks of this process
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        sweep = Sweep(Path(folder))
        for number in range(options.kills):
            if time.monotonic() - begun > options.seconds:
                break
            step = sweep.steps[number % len(sweep.steps)]
            trial = sweep.kill(step, draw, by_time=draw.random() < 0.4)
            kills[trial.command] += 1
            late[trial.command] += not trial.killed
            wrong[trial.command] += bool(trial.problem)
            if trial.problem:
                problems.append(f"{trial.command}, killed at {trial.moment}: {trial.problem}")
    rows = [(name, kills[name], late[name], wrong[name]) for name in dict.fromkeys(COMMANDS) if kills[name]]
    total = ("total", kills.total(), late.total(), wrong.total())
    print(text_table(Table(("command", "kills", "too late", "different"), [*rows, total], "lrrr")))
    print(f"seed {options.seed}, {time.monotonic() - begun:.0f} s")
    print("\n".join(problems))


if __name__ == "__main__":
    main()
