"""``kdkit demo clinkd`` with several seeds: methods side by side, what distillation gains, what an increment keeps.

    python benchmarks/clinkd_demo.py --work FOLDER [--seeds 0 1 2]

The seed is that of pictures, slips and student; the teachers are the shipped ones. FOLDER keeps the projects: a seed
whose figures are there is not run again. Everything is scored on the test split; the demo's settings were chosen on
the calibration split of other seeds (100 to 103). Beside the demo, plain selective generation (SASG) is scored.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from projects import print_table, spread
from scipy.stats import t

from kdkit.cli.demo_clinkd import FIGURES, NEW, OLD, RERANKERS, TASKS, average, mean_over, score_answers
from kdkit.cli.demo_steps import Steps

Found = Mapping[str, Mapping[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    runs = [one_seed(given.work / f"seed-{seed}", seed) for seed in given.seeds]
    print(f"\nTest split, mean over {', '.join(OLD)} and seeds {given.seeds} (smallest to largest), in %:\n")
    methods = [run["methods"] for run in runs]
    columns = {task.upper(): partial(mean_over, task=task, modalities=OLD) for task in TASKS}
    rows = []
    for name in methods[0]:
        scores = [[value(one[name]) for value in columns.values()] for one in methods]
        scores = [[*values, average(one[name], OLD)] for values, one in zip(scores, methods, strict=True)]
        rows.append([name, *(spread(column, factor=1) for column in zip(*scores, strict=True))])
    print_table(("method", *columns, "average"), rows)
    print("\nAgainst Pseudo-KD of the same seed, average, in points:\n")
    print_table(
        ("method", "difference"),
        [
            [n, spread([average(o[n], OLD) - average(o["Pseudo-KD"], OLD) for o in methods], factor=1)]
            for n in methods[0]
        ],
    )
    opened: dict[str, int] = {}
    for run in runs:
        for one in run["gates"]:
            opened[one["domain"]] = opened.get(one["domain"], 0) + (one["rule"] != "plain")
    print(f"\nSeeds in which one of five answers was chosen: {opened}")
    distillation(runs)
    increments(runs)


def distillation(runs: Sequence[Mapping[str, Any]]) -> None:
    """The gain of Pseudo-KD over the answers alone: of each seed, and over seeds (Student's t)."""
    gains = np.array([run["gain"]["points"] for run in runs])
    for run in runs:
        gain = run["gain"]
        print(f"gain {gain['points']:+.1f} ({gain['low']:+.1f} to {gain['high']:+.1f})")
    if len(gains) > 1:
        mean, half = gains.mean(), t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / math.sqrt(len(gains))
        print(f"mean over seeds {mean:+.1f}, 95 % interval {mean - half:+.1f} to {mean + half:+.1f}")


def increments(runs: Sequence[Mapping[str, Found]]) -> None:
    """Points lost and gained against the version before."""
    rows = []
    names = ("increment with retention", "plain fine-tuning")
    for name in names:
        changes = [
            [average(r["increments"][name], part) - average(r["increments"]["before"], part) for r in runs]
            for part in (OLD, (NEW,))
        ]
        rows.append([name, *(spread(change, factor=1) for change in changes)])
    print(f"\nOne more teacher ({NEW}); points against the version before:\n")
    print_table(("strategy", "old modalities", "new modality"), rows)
    ratios: list[list[float]] = []
    for run in runs:
        found = run["increments"]
        kept, plain = (
            [average(found[name], part) - average(found["before"], part) for part in (OLD, (NEW,))] for name in names
        )
        ratios.append([kept[0] / plain[0], kept[1] / plain[1]])
    lost, gained = zip(*ratios, strict=True)
    print(f"\nof plain fine-tuning's: loss {spread(lost, 2, factor=1)}, gain {spread(gained, 2, factor=1)}")


def one_seed(root: Path, seed: int) -> Any:
    """The figures of one run of the demo."""
    if not (root / FIGURES).is_file():
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        command = [sys.executable, "-m", "kdkit", "demo", "clinkd", str(root), "--seed", str(seed)]
        with open(root.parent / f"seed-{seed}.log", "w", encoding="utf-8") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log)
        print(f"seed {seed}: {time.monotonic() - begun:.0f} s", flush=True)
    figures = json.loads((root / FIGURES).read_text(encoding="utf-8"))
    plain = root / "plain-sasg.json"
    if not plain.is_file():
        plain.write_text(json.dumps(plain_sasg(root)), encoding="utf-8")
    figures["methods"]["Pseudo-KD, plain SASG of 5"] = json.loads(plain.read_text(encoding="utf-8"))
    return figures


def plain_sasg(root: Path) -> dict[str, float]:
    """Domain -> accuracy of the answers nearest to the image, boxes too: the paper's selective generation."""
    chosen: dict[str, str] = {}
    for teacher, modalities in RERANKERS.items():
        domains = [word for m in modalities for task in TASKS for word in ("--domain", f"{task}/{m}")]
        options = ["--version", "v2", "--samples", "5", "--rerank", teacher, "--choose", "nearest", "--max-new", "16"]
        command = [sys.executable, "-m", "kdkit", "answer", *options, *domains, "--json", "--project", str(root)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        chosen |= {row["id"]: row["text"] for row in json.loads(done.stdout)}
    return score_answers(Steps(root, None), chosen)


if __name__ == "__main__":
    main()
