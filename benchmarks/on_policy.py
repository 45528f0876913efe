"""On-policy distillation against offline distillation and both mixed, with equally many passes of the teacher.

    python benchmarks/on_policy.py --work FOLDER [--seeds 0 1 2]

The task is that of ``kdkit demo clinkd`` in small: two modalities with four questions about each picture, whose
training answers err on purpose. A student first learns from the answers alone. From its weights each way trains as many
steps on the same samples, with ``token-kd`` alone and the live teacher ``demo-reader``; only the answers that the
teacher scores differ. The seed is that of pictures, errors and student. FOLDER keeps the figures of every run. Nothing
is downloaded.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from projects import print_table, spread

from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.evaluation.evaluate import evaluate_version
from kdkit.core.project.project import Project
from kdkit.core.teachers import add_teacher

MODALITIES = ("mri", "xray")
REGISTRY = """\
version: 1
student: {student}
teachers: {{}}
data:
  - source: procedural-questions
    path: data
    options: {{seed: {seed}, train: 150, calibration: 16, test: 80, domains: [{modalities}]}}
recipe: ./{recipe}.yaml
"""
RECIPE = """\
name: {name}
summary: a way of the benchmark
losses: {losses}
trust: {{policy: all, options: {{unmeasured: true}}}}
optimizer: {{lr: {lr}, batch_size: {batch}, steps: {steps}, warmup: 0.1, betas: [0.9, 0.999], clip_norm: 1.0}}
"""
FIRST = {"lr": 0.004, "batch": 48, "steps": 250}
WAYS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "offline, forward KL": ("forward-kl", {"share": 0.0}),
    "offline, reverse KL": ("reverse-kl", {"share": 0.0}),
    "mixed, reverse KL": ("reverse-kl", {"share": 0.5}),
    "on-policy, reverse KL": ("reverse-kl", {"share": 1.0}),
    "on-policy, JSD": ("jsd", {"share": 1.0}),
}


def first_student(root: Path, seed: int) -> Path:
    """The folder of a student that learned from the answers alone."""
    write_registry(root, seed, "{family: demo-answerer}", "first")
    write_recipe(root, "first", [{"name": "answer-ce"}], FIRST)
    outcome = distill(Project(root), Options(cpu=True, seed=seed))
    assert outcome is not None
    return outcome.version.folder / "student"


def one_way(root: Path, seed: int, name: str, steps: int) -> dict[str, float]:
    """Mean accuracies on the test split in %, and seconds of the processor."""
    divergence, own = WAYS[name]
    losses = [{"name": "token-kd", "options": {"divergence": divergence}}]
    size = {"lr": 0.001, "batch": 24, "steps": steps}
    write_recipe(root, "way", losses, size, f"on_policy: {json.dumps({'max_new': 20, **own})}\n")
    begun = time.process_time()
    outcome = distill(Project(root), Options(cpu=True, seed=seed))
    assert outcome is not None
    seconds = time.process_time() - begun
    return {**scores(root, outcome.version.name), "seconds": seconds}


def scores(root: Path, version: str) -> dict[str, float]:
    """Task -> accuracy on the test split in %, and their average."""
    report = evaluate_version(Project(root), version, ancestors=False).evaluation
    found: dict[str, list[float]] = {}
    for domain, score in report.model(version).domains.items():
        found.setdefault(domain.partition("/")[0], []).append(100 * score.metrics["accuracy"])
    means = {task: float(np.mean(values)) for task, values in sorted(found.items())}
    return {**means, "average": float(np.mean(list(means.values())))}


def write_registry(root: Path, seed: int, student: str, recipe: str) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    text = REGISTRY.format(student=student, seed=seed, modalities=", ".join(MODALITIES), recipe=recipe)
    (root / "registry.yaml").write_text(text, encoding="utf-8")


def write_recipe(root: Path, name: str, losses: Any, size: Mapping[str, Any], part: str = "") -> None:
    recipe = RECIPE.format(name=name, losses=json.dumps(losses), **size)
    (root / f"{name}.yaml").write_text(recipe + part, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=120)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[Mapping[str, float]]] = {"before": [], **{name: [] for name in WAYS}}
    for seed in given.seeds:
        figures = one_seed(given.work / f"seed-{seed}", seed, given.steps)
        for name, part in found.items():
            part.append(figures[name])
    report(found)


def one_seed(folder: Path, seed: int, steps: int) -> Mapping[str, Mapping[str, float]]:
    """Way -> its figures; those that are in the folder are not computed again."""
    file, ways = folder / "figures.json", folder / "ways"
    figures = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if not figures:
        start = first_student(folder / "first", seed)
        figures["before"] = {**scores(folder / "first", "v1"), "seconds": 0.0}
        write_registry(ways, seed, json.dumps({"family": "clinkd", "config": {"init": str(start.resolve())}}), "way")
        add_teacher(Project(ways), "demo-reader", {"signals": "live"})
    for name in WAYS:
        if name not in figures:
            figures[name] = one_way(ways, seed, name, steps)
        file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        print(f"# seed {seed}, {name}: {figures[name]['average']:.1f} %, {figures[name]['seconds']:.0f} s", flush=True)
    return figures


def report(found: Mapping[str, list[Mapping[str, float]]]) -> None:
    """Means over seeds with smallest and largest, and differences from the offline way with the same divergence."""
    columns = [column for column in found["before"][0] if column != "seconds"]
    rows = [
        [name, *(spread([one[column] for one in runs], factor=1) for column in columns), spread_seconds(runs)]
        for name, runs in found.items()
    ]
    print("\nTest split, in % (smallest to largest of the seeds); seconds of the processor:\n")
    print_table(("way", *columns, "seconds"), rows)
    print("\nAverage against 'offline, reverse KL' of the same seed, in points:\n")
    base = [one["average"] for one in found["offline, reverse KL"]]
    print_table(
        ("way", "difference"),
        [
            [name, spread([one["average"] - b for one, b in zip(runs, base, strict=True)], factor=1)]
            for name, runs in found.items()
        ],
    )


def spread_seconds(runs: list[Mapping[str, float]]) -> str:
    return f"{np.median([one['seconds'] for one in runs]):.0f}"


if __name__ == "__main__":
    main()
