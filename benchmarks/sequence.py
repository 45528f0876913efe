"""Five increments in a row on real images, in the shape of MTIL (ZSCL, arXiv 2303.06628): Transfer, Average, Last.

    python benchmarks/sequence.py --work FOLDER [--orders 1 2 3] [--seeds 0 1 2] [--strategies kdkit joint plain ...]

Ten domains in six groups (benchmarks/medmini.py has the images and the specialists). The first group is learned from
scratch; each step brings one more group, and the specialist that knows it. Strategies differ in the recipe's section
'increment', and in whether the training images of earlier steps may be kept. 'joint' learns everything at once, from
scratch. After the last step, all versions are scored on all domains of the test split ('--split calibration' to
choose settings). FOLDER keeps teachers, projects and evaluations: a second run continues. One thread.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from medmini import DATA, DOMAINS, RATES, Bench, kdkit_recipe, rewrite, write_recipe
from medmini_teachers import SPECIALISTS, train_missing
from projects import copy_project
from sequence_tables import print_matrices, print_strategies

from kdkit.core.contracts import Silent, Split
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import prepare
from kdkit.core.evaluation.evaluate import evaluate_version
from kdkit.core.evaluation.scores import Evaluation
from kdkit.core.project.project import Project
from kdkit.core.project.versions import Versions

GROUPS = {
    "chest": ("chest_xray", "chest_ct"),
    "head": ("brain_mri", "radiology_bodypart"),
    "breast": ("breast_ultrasound",),
    "tissue": ("lung_histology", "cervical_cytology"),
    "cells": ("blood_microscopy", "nuclei_microscopy"),
    "skin": ("dermoscopy",),
}
ORDERS = {
    1: ("chest", "head", "breast", "tissue", "cells", "skin"),
    2: ("cells", "tissue", "skin", "head", "breast", "chest"),
    3: ("tissue", "chest", "skin", "cells", "head", "breast"),
}
JOINT, RATE = "joint", RATES["kdkit"]
SIMILARITY = {
    "weight": 1.0,
    "loss": "crd",
    "options": {"within_domain": True, "temperature": 0.05, "student_temperature": 0.05},
}


@dataclass(frozen=True)
class Strategy:
    """How the student is trained further.

    Attributes:
        title: its row in the tables.
        increment: section of the recipe; None for kdkit's own. Keys that are not given are switched off, and every
            new image is shown as often as in a run from scratch.
        keeps_images: whether training images of earlier steps are still there.
    """

    title: str
    increment: Mapping[str, Any] | None
    keeps_images: bool = False

    def write(self, root: Path, name: str) -> str:
        """The recipe's name in a project; its file differs from kdkit's in the section alone."""
        if self.increment is None:
            return "kdkit"
        recipe = kdkit_recipe()
        recipe["increment"] = {"replay": 0.0, "exposure": 1.0, "steps": 1.0, **self.increment}
        write_recipe(recipe, root / f"{name}.yaml")
        return name


STRATEGIES = {
    "kdkit": Strategy("`kdkit`'s increment", None, keeps_images=True),
    "replay": Strategy("replay alone, half of each batch", {"replay": 0.5}, keeps_images=True),
    "memory-free": Strategy("`kdkit`'s increment without old images", None),
    "plain": Strategy("plain fine-tuning", {}),
    "wise-ft": Strategy("plain fine-tuning, half-way back (WiSE-FT)", {"interpolate": 0.5}),
    "lwf": Strategy("previous version on the new images (LwF)", {"previous": SIMILARITY}),
    "zscl": Strategy("LwF, half-way back (ZSCL-style)", {"previous": SIMILARITY, "interpolate": 0.5}),
}


@dataclass(frozen=True)
class TaskSequence:
    """One order with one seed: a folder with the base and a project per strategy."""

    bench: Bench
    order: int
    seed: int
    split: Split

    @property
    def groups(self) -> tuple[str, ...]:
        return ORDERS[self.order]

    @property
    def folder(self) -> Path:
        return self.bench.work / f"order{self.order}-seed{self.seed}"

    @property
    def chance(self) -> float:
        """Accuracy of guessing, mean over the domains that the base does not have."""
        later = [domain for group in self.groups[1:] for domain in GROUPS[group]]
        classes = [len({row["label"] for row in self.bench.rows if row["modality"] == domain}) for domain in later]
        return sum(1 / number for number in classes) / len(later)

    def key(self, strategy: str) -> str:
        return f"{self.split}-order{self.order}-{strategy}-{self.seed}"

    def run(self, name: str) -> None:
        """All steps of a strategy that are missing, and its evaluation."""
        if self.bench.has(self.key(name)):
            return
        strategy, project = STRATEGIES[name], self._start(name)
        recipe = strategy.write(project.root, name)
        for step in range(1, len(self.groups)):
            if f"v{step + 1}" not in Versions(project).names():
                self._bring(project, step, keeps_images=strategy.keeps_images)
                self._distill(project, recipe, incremental=True)
        found = evaluate_version(Project(project.root), split=self.split).evaluation
        self.bench.keep(self.key(name), found, seconds=sum(list(_seconds(project).values())[1:]))

    def _start(self, name: str) -> Project:
        """A copy of the base for one strategy."""
        base, own = self._base(), self.folder / name
        if not own.exists():
            draft = self.folder / f".{name}"
            shutil.rmtree(draft, ignore_errors=True)
            copy_project(base.root, draft)
            os.replace(draft, own)
        return Project(own)

    def _base(self) -> Project:
        """The first version: one group, learned from scratch. Features of all teachers are here already."""
        name = f"{self.folder.name}/base"
        if not (self.bench.work / name / "made").exists():
            shutil.rmtree(self.bench.work / name, ignore_errors=True)
            project = self.bench.project(name, GROUPS[self.groups[0]], ())
            shutil.copytree(_everything(self.bench).features, project.features)
        project = Project(self.bench.work / name)
        if not Versions(project).names():
            self._bring(project, 0, keeps_images=True)
            self._distill(project, "kdkit")
        return project

    def _bring(self, project: Project, step: int, *, keeps_images: bool) -> None:
        """Data of the groups up to ``step``, and the specialists that know the group of this step."""
        new = GROUPS[self.groups[step]]
        old = [domain for group in self.groups[:step] for domain in GROUPS[group]]
        entries = [self.bench.entry(project.root, domain, train=keeps_images) for domain in old]
        entries += [self.bench.entry(project.root, domain) for domain in new]
        rewrite(project, "data", json.dumps(entries))
        for specialist in SPECIALISTS:
            if set(specialist.domains) & set(new) and specialist.name not in Project(project.root).registry.teachers:
                self.bench.add(project.root, specialist.name)

    def _distill(self, project: Project, recipe: str, **options: Any) -> None:
        version, seconds, evaluation = self.bench.distill(project, recipe, RATE, seed=self.seed, **options)
        (project.root / "seconds.json").write_text(json.dumps(_seconds(project) | {version: seconds}))
        accuracy = evaluation.of_role("student")[0].means["accuracy"]
        done = f"order {self.order}, seed {self.seed}, {project.root.name}, {version}"
        print(f"{done}: calibration accuracy so far {100 * accuracy:.1f}, {seconds:.0f} CPU s", flush=True)


def _seconds(project: Project) -> dict[str, float]:
    """Version -> CPU seconds of its run, as kept beside the project's registry."""
    path = project.root / "seconds.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _everything(bench: Bench) -> Project:
    """The project of all domains and all specialists, with their features."""
    project = bench.project("all", DOMAINS, [one.name for one in SPECIALISTS])
    prepare(project, Options(cpu=True), Silent())
    return project


def run_joint(bench: Bench, seed: int, split: Split) -> None:
    """All domains and specialists at once, from scratch."""
    key = joint_key(seed, split)
    if bench.has(key):
        return
    project = _everything(bench)
    version, seconds, _ = bench.distill(project, "kdkit", RATE, seed=seed)
    found = evaluate_version(Project(project.root), version, split=split, ancestors=False).evaluation
    bench.keep(key, found, seconds=seconds)
    accuracy = found.of_role("student")[0].means["accuracy"]
    print(f"joint, seed {seed}: {split} accuracy {100 * accuracy:.1f}, {seconds:.0f} CPU s", flush=True)


def joint_key(seed: int, split: Split) -> str:
    return f"{split}-{JOINT}-{seed}"


def main() -> None:
    given = _arguments()
    torch.set_num_threads(1)
    bench = Bench(given.work.resolve(), given.data.resolve(), given.epochs, given.teacher_steps)
    train_missing(bench.teachers, bench.rows, bench.data, bench.words, bench.teacher_steps)
    runs = [TaskSequence(bench, order, seed, given.split) for seed in given.seeds for order in given.orders]
    for strategy in given.strategies:
        for run in runs:
            if strategy == JOINT:
                run_joint(bench, run.seed, given.split)
            else:
                run.run(strategy)
    print_found(bench, runs)


def print_found(bench: Bench, runs: Sequence[TaskSequence]) -> None:
    """Tables of every strategy that has all of ``runs``."""
    split = runs[0].split
    complete = {
        name: [bench.found(run.key(name)) for run in runs]
        for name in STRATEGIES
        if all(bench.has(run.key(name)) for run in runs)
    }
    seeds = list(dict.fromkeys(run.seed for run in runs))
    keys = [joint_key(seed, split) for seed in seeds]
    joint: list[Evaluation] = [bench.found(key) for key in keys if bench.has(key)]
    learned = [{domain: step for step, group in enumerate(run.groups) for domain in GROUPS[group]} for run in runs]
    titles = {name: STRATEGIES[name].title for name in complete}
    print(f"\nSplit {split}; orders {sorted({run.order for run in runs})}; seeds {seeds}.")
    print(f"Guessing has a Transfer of {100 * sum(run.chance for run in runs) / len(runs):.1f} % accuracy.")
    print_strategies({titles[name]: found for name, found in complete.items()}, learned, joint)
    for name, found in complete.items():
        print_matrices(titles[name], found, learned)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--orders", type=int, nargs="+", default=list(ORDERS), choices=list(ORDERS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    strategies = [*STRATEGIES, JOINT]
    parser.add_argument("--strategies", nargs="+", default=strategies, choices=strategies)
    parser.add_argument("--split", choices=["test", "calibration"], default="test")
    parser.add_argument("--epochs", type=float, help="default: the recipe's own length")
    parser.add_argument("--teacher-steps", type=float, default=1.0, help="share of each specialist's steps")
    given = parser.parse_args()
    if not (given.data / "samples.jsonl").is_file():
        sys.exit(f"the images are not here: {given.data}\nThis benchmark needs them; name their folder by --data.")
    return given


if __name__ == "__main__":
    main()
