"""What does an increment keep, gain and cost? Demo world; the last specialist brings the new domain oct.

    python benchmarks/increment.py [--seeds 0 1 2] [--strategies NAME ...]

Baselines of the same run: joint retraining from scratch on everything (what one would do without kdkit), and plain
fine-tuning on what is new. 1,000 test pictures a domain. Changes are against the base version, in points of accuracy.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from projects import (
    FIRST_TEACHERS,
    LAST_TEACHER,
    NEW,
    OLD,
    Size,
    add_domain,
    copy_project,
    demo_project,
    print_table,
    run,
    score_on_test,
    spread,
)
from ruamel.yaml import YAML

from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.project import Project
from kdkit.core.project.recipe_file import recipe_file
from kdkit.core.project.versions import Version
from kdkit.core.teachers import add_teacher

CRD = {"weight": 1.0, "options": {"within_domain": True, "temperature": 0.05, "student_temperature": 0.05}}
FD = {"weight": 10.0, "loss": "fd", "options": {"reduction": "sum", "average_over": "samples"}}
STRATEGIES: dict[str, dict[str, Any]] = {
    "kdkit": {},
    "plain fine-tuning": {"replay": 0.0},
    "replay 0.85": {"replay": 0.85},
    "kdkit, and the previous version of what it knows": {"previous": CRD},
    "previous version on the new images only (LwF)": {"replay": 0.0, "previous": CRD},
    "nothing to replay (without_replay of kdkit)": {"replay": 0.0, "previous": {"altered": 5}},
    "nothing to replay, frozen directions": {"replay": 0.0, "previous": {"frozen_energy": 0.5}},
    "nothing to replay, fd against the previous version": {"replay": 0.0, "previous": FD},
    "nothing to replay, pull 1": {"replay": 0.0, "pull": 1.0},
    "plain fine-tuning, half-way back (WiSE-FT)": {"replay": 0.0, "interpolate": 0.5},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    arguments = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as scratch:
            _one_seed(Path(scratch), seed, arguments.strategies, found)
    columns = ("old: mean", "old: worst", "new domain", "of joint's gain", "seconds", "of joint's time")
    rows = [
        [name, *(spread(v[c], factor=1.0 if c == "seconds" else 100.0) for c in columns)] for name, v in found.items()
    ]
    print(f"\nmean over seeds {arguments.seeds} (smallest to largest), in points and %:\n")
    print_table(("strategy", *columns), rows)


def _one_seed(scratch: Path, seed: int, strategies: list[str], found: dict[str, dict[str, list[float]]]) -> None:
    size = Size()
    base = demo_project(scratch / "base", seed=seed, size=size, domains=OLD, teachers=FIRST_TEACHERS)
    run(base, seed=seed)
    add_domain(base.root, seed=seed, size=size, domain=NEW)
    add_teacher(Project(base.root), LAST_TEACHER, {})
    registry = base.root / "registry.yaml"
    registry.write_text(registry.read_text(encoding="utf-8") + "guard: {tolerance: 100}\n", encoding="utf-8")
    joint = run(base, seed=seed).version  # v2: everything from scratch; it also extracts what is new, for all
    before = score_on_test(base, "v1").of_role("student")[0]
    together = score_on_test(base, "v2").of_role("student")[0]
    start, whole = before.domains[NEW].metrics["accuracy"], together.domains[NEW].metrics["accuracy"]
    cost = _seconds(joint)
    _record(found["joint retraining"], before, together, 1.0, cost, cost)
    for name in strategies:
        project = copy_project(base.root, scratch / "-".join(name.split())[:20])
        (project.root / "versions" / "current").write_text("v1\n", encoding="utf-8")
        recipe = _recipe(project, STRATEGIES[name])
        version = run(project, incremental=True, recipe=recipe, seed=seed).version
        after = score_on_test(project, version.name).of_role("student")[0]
        gain = (after.domains[NEW].metrics["accuracy"] - start) / (whole - start)
        _record(found[name], before, after, gain, _seconds(version), cost)
        print(f"seed {seed}, {name}: { ({k: round(v[-1], 4) for k, v in found[name].items()}) }", flush=True)


def _seconds(version: Version) -> float:
    """Training and what was computed for it (features of the previous version), without extraction and evaluation."""
    training = version.lineage.training
    return float(training.seconds + training.machine.building_seconds)


def _recipe(project: Project, changes: dict[str, Any]) -> str:
    """The kdkit recipe with another ``increment``, as a file of the project."""
    yaml = YAML()
    recipe = yaml.load(recipe_file("kdkit", load_catalogue()).text)
    recipe["increment"].update(changes)
    with open(project.root / "strategy.yaml", "w", encoding="utf-8") as handle:
        yaml.dump(recipe, handle)
    return "./strategy.yaml"


def _record(row: dict[str, list[float]], before: Any, after: Any, gain: float, seconds: float, joint: float) -> None:
    change = [after.domains[d].metrics["accuracy"] - before.domains[d].metrics["accuracy"] for d in OLD]
    row["old: mean"].append(float(np.mean(change)))
    row["old: worst"].append(float(np.min(change)))
    row["new domain"].append(after.domains[NEW].metrics["accuracy"])
    row["of joint's gain"].append(gain)
    row["seconds"].append(seconds)
    row["of joint's time"].append(seconds / joint)


if __name__ == "__main__":
    main()
