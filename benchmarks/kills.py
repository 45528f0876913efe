"""Kill commands at operations and at random moments, run each once more, and compare with an uninterrupted run.

    nice python benchmarks/kills.py --kills 300 --seed 0 [--only push,pull]

Operations are changes of files and requests to the Hub. Of a command in two processes, one is killed at a random
moment. Prints a row per command: kills, kills that came too late, retries whose files (without times), commits on the
Hub or exit code are others than without a kill. Then every difference.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from kdkit.core.base.result import Table, text_table
from tests.killed_projects import ANSWERING, ENCODERS, RANKS
from tests.kills import Sweep
from tests.warm_python import LIBRARIES


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="comma-separated commands")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end early after so many seconds")
    parser.add_argument("--ranks", action="store_true", help="commands in two processes, and data shards, alone")
    options = parser.parse_args()
    draw, begun = random.Random(options.seed), time.monotonic()
    kills, late, wrong, problems = Counter[str](), Counter[str](), Counter[str](), list[str]()
    for name in LIBRARIES:  # the commands are forks of this process
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        lives = enumerate((RANKS,) if options.ranks else (ENCODERS, ANSWERING, RANKS))
        sweeps = [opened.enter_context(closing(Sweep(Path(folder) / str(number), life))) for number, life in lives]
        every = [(sweep, step) for sweep in sweeps for step in sweep.steps]
        chosen = [found for found in every if not options.only or _name(found[1].words) in options.only.split(",")]
        for number in range(options.kills):
            if time.monotonic() - begun > options.seconds:
                break
            sweep, step = chosen[number % len(chosen)]
            trial = sweep.kill(step, draw, by_time=draw.random() < 0.4)
            kills[trial.command] += 1
            late[trial.command] += not trial.killed
            wrong[trial.command] += bool(trial.problem)
            if trial.problem:
                problems.append(f"{trial.command}, killed at {trial.moment}: {trial.problem}")
                print(problems[-1], file=sys.stderr, flush=True)
    names = dict.fromkeys(" ".join(step.words) for _, step in chosen)
    rows = [(name, kills[name], late[name], wrong[name]) for name in names if kills[name]]
    total = ("total", kills.total(), late.total(), wrong.total())
    print(text_table(Table(("command", "kills", "too late", "different"), [*rows, total], "lrrr")))
    print(f"seed {options.seed}, {time.monotonic() - begun:.0f} s")


def _name(words: Sequence[str]) -> str:
    """``push``, ``features push``: the words before the first argument."""
    return " ".join(words[:2] if words[0] in ("features", "data") else words[:1])


if __name__ == "__main__":
    main()
