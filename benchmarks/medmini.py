"""Real images: how good is the student, and what does an increment keep, gain and cost?

    python benchmarks/medmini.py --work FOLDER [--seeds 0 1 2] [--recipes kdkit mmkd-paper ...] [--parts quality ...]
                                 [--split calibration]

The images (112 px, ten domains of two to six findings, about 5,400) are read where they lie: ../shared/data/medmini
beside the checkout, or --data. FOLDER keeps the teachers, the projects and every evaluation: a second run continues.
Four specialists are trained on disjoint domains (medmini_teachers.py). Everything is scored on the test split; what
was chosen here (learning rates, length) was chosen on the calibration split, with other seeds: '--parts choose', or
'--split calibration'.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from medmini_tables import INCREMENT_COLUMNS, increment_row, print_differences, print_domains, print_means
from medmini_teachers import SPECIALISTS, model_config, train_missing
from projects import copy_project, print_table, run
from ruamel.yaml import YAML
from tokenizers import pre_tokenizers

from kdkit.core.contracts import Silent, Split
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import prepare
from kdkit.core.evaluation.evaluate import evaluate_version
from kdkit.core.evaluation.scores import Evaluation
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.project import Project
from kdkit.core.project.recipe_file import recipe_file
from kdkit.core.teachers import add_teacher

DATA = Path(__file__).parents[2] / "shared" / "data" / "medmini"
DOMAINS = tuple(sorted(domain for specialist in SPECIALISTS for domain in specialist.domains))
LAST = SPECIALISTS[-1]
OLD = tuple(domain for domain in DOMAINS if domain not in LAST.domains)
RECIPES = ("kdkit", "teachers-alone", "mmkd-paper", "mmkd-released", "clipkd", "captions")
RATES = dict.fromkeys(RECIPES, 2e-3) | {"mmkd-paper": 1e-3, "mmkd-released": 1e-3}
"""Learning rates: chosen on the calibration split among ``GRID``. Length and batch are the same for all."""
GRID = (1e-3, 2e-3, 5e-3)
BATCH = 64
TUNING_SEED = 100

REGISTRY = """\
version: 1
student: {{family: open_clip, config: {student}}}
teachers: {{}}
data: {data}
prompts: {{default: ["{{label}}"]}}
optimizer: {{}}
guard: {{tolerance: 100}}
recipe: kdkit
"""


@dataclass(frozen=True)
class Bench:
    """Where everything is."""

    work: Path
    data: Path
    epochs: float | None
    teacher_steps: float
    wrong_captions: float = 0.0
    split: Split = "test"

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The manifest's rows of domains that have something to tell apart."""
        with open(self.data / "samples.jsonl", encoding="utf-8") as lines:
            return [row for row in map(json.loads, lines) if row["modality"] in DOMAINS]

    @cached_property
    def captioned(self) -> list[dict[str, Any]]:
        """``rows``, each with the text that the student reads: for a share of them it names another class of the
        domain. Labels and prompts stay right."""
        draw = np.random.default_rng(7)
        others = {
            domain: sorted({row["caption"] for row in self.rows if row["modality"] == domain}) for domain in DOMAINS
        }
        rows = []
        for row in self.rows:
            wrong = [caption for caption in others[row["modality"]] if caption != row["caption"]]
            chosen, swapped = str(draw.choice(wrong)), draw.random() < self.wrong_captions
            rows.append({**row, "text": chosen if swapped and row["split"] == "train" else row["caption"]})
        return rows

    @cached_property
    def words(self) -> list[str]:
        cut = pre_tokenizers.Whitespace()
        texts = {text.lower() for row in self.rows for text in (row["caption"], row["label"])}
        return sorted({word for text in texts for word, _ in cut.pre_tokenize_str(text)})

    @property
    def teachers(self) -> Path:
        return self.work / "teachers"

    def project(self, name: str, domains: Sequence[str], teachers: Sequence[str]) -> Project:
        """A project of ``domains`` and ``teachers``, made if it is not there; the student is the same in all."""
        root = self.work / name
        if (root / "made").exists():
            return Project(root)
        root.mkdir(parents=True)
        text = REGISTRY.format(
            student=json.dumps(model_config(128, self.words)),
            data=json.dumps([self.entry(root, domain) for domain in domains]),
        )
        (root / "registry.yaml").write_text(text, encoding="utf-8")
        recipe = kdkit_recipe()
        recipe["losses"] = [loss for loss in recipe["losses"] if loss["name"] != "clip"]
        recipe["trust"]["policy"] = "soft"
        write_recipe(recipe, root / "teachers-alone.yaml")
        recipe = kdkit_recipe()
        recipe["increment"].update({"replay": 0.0, "previous": {"weight": 0.0}, "pull": 0.0, "interpolate": 1.0})
        write_recipe(recipe, root / "plain.yaml")
        for teacher in teachers:
            self.add(root, teacher)
        (root / "made").touch()
        return Project(root)

    def add(self, root: Path, teacher: str) -> None:
        add_teacher(Project(root), teacher, {"from": f"local:{self.teachers / teacher}", "license": "apache-2.0"})

    def extend(self, project: Project) -> None:
        """The last specialist appears, and with it its domains."""
        data = json.dumps([self.entry(project.root, domain) for domain in (*OLD, *LAST.domains)])
        rewrite(project, "data", data)
        self.add(project.root, LAST.name)

    def entry(self, root: Path, domain: str, *, train: bool = True) -> dict[str, Any]:
        """A manifest of one domain, since a source takes all of a manifest; the images stay where they are.

        Args:
            train: False: without the training images, as if they could not be kept.
        """
        rows = [row for row in self.captioned if row["modality"] == domain and (train or row["split"] != "train")]
        with open(root / f"{domain}.jsonl", "w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in rows)
        # Each class has one caption; it serves as the prompt, so that nothing depends on how a prompt is worded.
        columns = {"text": "text", "domain": "modality", "label": "caption"}
        options = {"columns": columns, "image_root": str(self.data)}
        return {"source": "jsonl", "path": f"{domain}.jsonl", "options": options}

    def distill(self, project: Project, recipe: str, rate: float, **options: Any) -> tuple[str, float, Evaluation]:
        """(version, CPU seconds without extraction, evaluation on the calibration split)."""
        length = {} if self.epochs is None else {"epochs": self.epochs}
        rewrite(project, "optimizer", json.dumps({"lr": rate, "batch_size": BATCH, **length}))
        own = project.root / f"{recipe}.yaml"
        options["recipe"] = f"./{own.name}" if own.exists() else recipe
        if recipe.startswith("mmkd-"):  # the distillation alone, as all others
            options["stage"] = 2
        prepare(Project(project.root), Options(cpu=True, **options), Silent())  # extraction is not timed
        started = time.process_time()
        outcome = run(project, **options)
        return outcome.version.name, time.process_time() - started, outcome.evaluation

    def score(self, key: str, project: Project, version: str, seconds: float) -> None:
        """Evaluate a version beside the teachers and keep what was found."""
        found = evaluate_version(Project(project.root), version, split=self.split, ancestors=False).evaluation
        self.keep(key, found, seconds)
        means = {name: round(value, 4) for name, value in found.of_role("student")[0].means.items()}
        print(f"{key}: {means} in {seconds:.0f} CPU s", flush=True)

    def keep(self, key: str, found: Evaluation, seconds: float) -> None:
        replace(found, settings={**found.settings, "seconds": seconds}).save(self._file(key))

    def has(self, key: str) -> bool:
        return self._file(key).exists()

    def found(self, key: str) -> Evaluation:
        return Evaluation.load(self._file(key))

    def _file(self, key: str) -> Path:
        return self.work / "evaluations" / f"{key if self.split == 'test' else f'{self.split}-{key}'}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument(
        "--parts", nargs="+", choices=["choose", "quality", "increment"], default=["quality", "increment"]
    )
    parser.add_argument("--epochs", type=float, help="default: each recipe's own length")
    parser.add_argument("--teacher-steps", type=float, default=1.0, help="share of each specialist's steps; 0.1: weak")
    parser.add_argument("--wrong-captions", type=float, default=0.0, help="share of training captions that are wrong")
    parser.add_argument("--split", choices=["test", "calibration"], default="test", help="what is scored")
    given = parser.parse_args()
    if not (given.data / "samples.jsonl").is_file():
        sys.exit(f"the images are not here: {given.data}\nThis benchmark needs them; name their folder by --data.")
    torch.set_num_threads(1)
    bench = Bench(
        given.work.resolve(),
        given.data.resolve(),
        given.epochs,
        given.teacher_steps,
        given.wrong_captions,
        split=given.split,
    )
    train_missing(bench.teachers, bench.rows, bench.data, bench.words, bench.teacher_steps)
    if "choose" in given.parts:
        choose(bench, given.recipes)
    if "quality" in given.parts:
        quality(bench, given.recipes, given.seeds)
    if "increment" in given.parts:
        increment(bench, given.seeds)


# ------------------------------------------------------------------------------------ choices


def choose(bench: Bench, recipes: Sequence[str]) -> None:
    """Print the calibration scores of every recipe at every rate of the grid; nothing here reads the test split."""
    project = bench.project("all", DOMAINS, [one.name for one in SPECIALISTS])
    rows = []
    for recipe in recipes:
        for rate in GRID:
            _, _, evaluation = bench.distill(project, recipe, rate, seed=TUNING_SEED)
            student = evaluation.of_role("student")[0]
            rows.append([recipe, f"{rate:g}", *(f"{100 * student.means[m]:.1f}" for m in ("accuracy", "auc"))])
            print(rows[-1], flush=True)
    print_table(("recipe", "rate", "calibration accuracy", "calibration AUC"), rows)


# ------------------------------------------------------------------------------------ quality


def quality(bench: Bench, recipes: Sequence[str], seeds: Sequence[int]) -> None:
    """Every recipe from scratch, on all domains and from all specialists."""
    project = bench.project("all", DOMAINS, [one.name for one in SPECIALISTS])
    for seed in seeds:
        for recipe in recipes:
            if not bench.has(f"{recipe}-{seed}"):
                version, seconds, _ = bench.distill(project, recipe, RATES[recipe], seed=seed)
                bench.score(f"{recipe}-{seed}", project, version, seconds)
    found = {recipe: [bench.found(f"{recipe}-{seed}") for seed in seeds] for recipe in recipes}
    print_means(found)
    for metric in ("accuracy", "auc"):
        print_domains(found, metric)
    print_differences(found)


# ---------------------------------------------------------------------------------- increment


def increment(bench: Bench, seeds: Sequence[int]) -> None:
    """Three specialists and their domains first, then the last one and its two."""
    for seed in seeds:
        if not bench.has(f"increment-plain-{seed}"):
            _one_increment(bench, seed)
    steps = {
        "joint": "joint retraining",
        "default": "kdkit's increment",
        "plain": "plain fine-tuning on what is new",
    }
    before = [bench.found(f"increment-base-{seed}") for seed in seeds]
    together = [bench.found(f"increment-joint-{seed}") for seed in seeds]
    rows = []
    for step, name in steps.items():
        after = [bench.found(f"increment-{step}-{seed}") for seed in seeds]
        rows.append([name, *increment_row(before, after, together, old=OLD, new=LAST.domains)])
    print(f"\nChange against the version before, {bench.split} split, points; mean over seeds (smallest to largest):\n")
    print_table(("strategy", *INCREMENT_COLUMNS), rows)


def _one_increment(bench: Bench, seed: int) -> None:
    base = bench.project("base", OLD, [one.name for one in SPECIALISTS[:-1]])
    grown = bench.work / f"grown-{seed}"
    if not bench.has(f"increment-joint-{seed}"):
        shutil.rmtree(grown, ignore_errors=True)
        copy_project(base.root, grown)
        first, seconds, _ = bench.distill(Project(grown), "kdkit", RATES["kdkit"], seed=seed)
        bench.extend(Project(grown))
        joint, cost, _ = bench.distill(Project(grown), "kdkit", RATES["kdkit"], seed=seed)
        bench.score(f"increment-base-{seed}", Project(grown), first, seconds)
        bench.score(f"increment-joint-{seed}", Project(grown), joint, cost)
    strategies = {"default": "kdkit", "plain": "plain"}
    for step, recipe in strategies.items():
        (grown / "versions" / "current").write_text("v1\n", encoding="utf-8")
        version, seconds, _ = bench.distill(Project(grown), recipe, RATES["kdkit"], seed=seed, incremental=True)
        bench.score(f"increment-{step}-{seed}", Project(grown), version, seconds)


def kdkit_recipe() -> Any:
    return YAML().load(recipe_file("kdkit", load_catalogue()).text)


def write_recipe(recipe: Any, path: Path) -> None:
    with open(path, "w", encoding="utf-8") as handle:
        YAML().dump(recipe, handle)


def rewrite(project: Project, key: str, value: str) -> None:
    """Replace a one-line section of the registry."""
    text = project.registry_path.read_text(encoding="utf-8")
    changed = re.sub(rf"^{key}: .*$", lambda _: f"{key}: {value}", text, count=1, flags=re.M)
    project.registry_path.write_text(changed, encoding="utf-8")


if __name__ == "__main__":
    main()
