"""``kdkit demo clinkd``: a student that answers questions, through the public commands, without a download."""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.cli import console
from kdkit.cli.demo_steps import Steps, heading
from kdkit.core.base.result import Table, text_table

if TYPE_CHECKING:
    from kdkit.core.contracts import Sample
    from kdkit.core.evaluation.scores import ModelScores

OLD, NEW = ("mri", "dermoscopy", "xray"), "ct"
TASKS = ("vg", "roc", "rc", "mia")
FIRST_TEACHER, SECOND_TEACHER = "demo-reader", "demo-scanner"
RERANKERS = {"demo-radio": ("mri", "xray"), "demo-tissue": ("dermoscopy",)}
FIGURES = "figures.json"
"""In the project: method -> domain -> accuracy on the test split, and the same for increments."""
VARIANTS = ("mcg-rope", "clinkd-repo")

BANNER = """\
This is a demonstration on pictures that a program draws. Its teachers are STAND-INS: tiny Qwen2-VL-shaped networks
trained on such pictures. They know nothing about real images, and neither will the student. Nothing is downloaded.
Answers of the training split err on purpose: 15 % name another finding, 30 % misplace it."""

REGISTRY = """\
# The demo's project. Yours looks the same: change the data, the teachers and the student.
version: 1
use: research

student:
  family: demo-answerer    # family clinkd with Qwen2-VL's architecture and 0.3 million random weights
  config: {{rope: mrope}}

teachers: {{}}

data:
  # Drawn on first use, with four questions about each picture: vg (where is it?), roc (what is in this box?),
  # rc (describe this box) and mia (what does this image show?). A domain is task and modality: vg/mri.
  - source: procedural-questions
    path: data/first
    options: {{seed: {seed}, train: {train}, calibration: {calibration}, test: {test}, domains: [{domains}]}}

optimizer: {{lr: 0.004, batch_size: 48, epochs: {epochs}}}   # the student is tiny and starts from nothing
recipe: ./pseudo-kd.yaml
guard: {{tolerance: 15}}     # points; a student this short of training swings by 10 from run to run. Default: 1
"""

MORE_DATA = """\
  - source: procedural-questions     # added with the teacher that knows it
    path: data/{domain}
    options: {{seed: {seed}, train: {train}, calibration: {calibration}, test: {test}, domains: [{domain}]}}
"""

LENGTH = {"steps": 0.8, "lr_factor": 0.5}
INCREMENT = {"replay": 0.3, "oversample": 2.0, **LENGTH}
"""Replaces that of the recipes, which is made for students that start from a pretrained model. New samples are 0.62 of
a batch (docs/explanation/benchmarks.md compares others): each is shown twice as often as in a run from scratch."""
PLAIN = {"replay": 0.0, **LENGTH, "without_replay": {"weight": 0.0}, "repair": None}


@dataclass(frozen=True)
class Sizes:
    """Pictures of each modality in each split, and the length of training."""

    seed: int
    train: int
    calibration: int
    test: int
    epochs: float = 4.0


def clinkd_demo(steps: Steps, sizes: Sizes) -> None:
    start = time.monotonic()
    console.say(BANNER)
    steps.write_registry(REGISTRY.format(domains=", ".join(OLD), **vars(sizes)))
    write_recipe(steps.root / "pseudo-kd.yaml", "clinkd", INCREMENT)
    write_recipe(steps.root / "answers.yaml", "sft", INCREMENT)
    write_recipe(steps.root / "plain.yaml", "sft", PLAIN)
    heading(f"Data: {', '.join(OLD)}; four questions about each picture")
    steps.run("data", "check")
    heading("A teacher that answers: its next-token distributions are stored once")
    steps.run("add-teacher", FIRST_TEACHER)
    steps.run("features", "extract")
    steps.run("trust")
    methods = compare_methods(steps, sizes.seed)
    increments = compare_increments(steps, sizes)
    heading("Selective generation (SASG): of five sampled answers, a dual encoder chooses the nearest to the image")
    methods["Pseudo-KD, SASG of 5"] = score_best_of_five(steps, "v2")
    figures = json.dumps({"methods": methods, "increments": increments}, indent=1)
    (steps.root / FIGURES).write_text(figures + "\n", encoding="utf-8")
    heading(f"Done in {time.monotonic() - start:.0f} s")
    summary(methods, increments)


def write_recipe(path: Path, base: str, increment: Mapping[str, Any]) -> None:
    """A built-in recipe with another ``increment`` and a warm-up, which an untrained student needs."""
    from ruamel.yaml import YAML

    from kdkit.core.plugin_system.discovery import load_catalogue
    from kdkit.core.project.recipe_file import recipe_file

    recipe = YAML().load(recipe_file(base, load_catalogue()).text)
    recipe["name"] = path.stem
    recipe["optimizer"]["warmup"] = 0.1
    recipe["increment"] = dict(increment)
    with open(path, "w", encoding="utf-8") as handle:
        YAML().dump(recipe, handle)


def compare_methods(steps: Steps, seed: int) -> dict[str, Mapping[str, float]]:
    """Method -> domain -> accuracy: the baseline, Pseudo-KD and the RoPE variants, each from scratch; v2 is current."""
    heading("The baseline: the answers alone, no teacher")
    steps.run("distill", "--recipe", "./answers.yaml", "--seed", str(seed))
    heading("Pseudo-KD: the answers and the teacher's distributions")
    steps.run("distill", "--seed", str(seed))
    registry = steps.root / "registry.yaml"
    before = registry.read_text(encoding="utf-8")
    for variant in VARIANTS:
        heading(f"Pseudo-KD with the RoPE variant {variant}")
        registry.write_text(before.replace("rope: mrope", f"rope: {variant}"), "utf-8")
        steps.run("distill", "--seed", str(seed))
    registry.write_text(before, encoding="utf-8")
    steps.run("rollback", "v2")
    heading("Evaluation on the test split, which no step has read before")
    names = ["answers alone", "Pseudo-KD", *(f"Pseudo-KD, {variant}" for variant in VARIANTS)]
    models = [evaluate(steps, f"v{number}", "--alone") for number in range(1, len(names) + 1)]
    found: dict[str, Mapping[str, float]] = {"chance": score_swapped_answers(steps, seed)}
    found[f"teacher {FIRST_TEACHER}"] = accuracies(models[0][FIRST_TEACHER])
    return found | {name: accuracies(models[n][f"v{n + 1}"]) for n, name in enumerate(names)}


def compare_increments(steps: Steps, sizes: Sizes) -> Mapping[str, Mapping[str, float]]:
    """Strategy -> domain -> accuracy: a second teacher and its modality, added with retention and by fine-tuning."""
    heading(f"A second teacher appears, and with it a new modality: {NEW}")
    steps.add_data(MORE_DATA.format(domain=NEW, **vars(sizes)), before="optimizer:")
    steps.run("add-teacher", SECOND_TEACHER)
    heading(f"First, to compare with: plain fine-tuning on {NEW} alone. The guard should refuse it")
    steps.run("distill", "--incremental", "--recipe", "./plain.yaml", "--seed", str(sizes.seed), allowed=(0, 1))
    steps.run("rollback", "v2")
    heading("Then the increment: both teachers, and old samples replayed beside the new ones")
    steps.run("distill", "--incremental", "--seed", str(sizes.seed), allowed=(0, 1))
    steps.run("versions")
    plain, retained = f"v{3 + len(VARIANTS)}", f"v{4 + len(VARIANTS)}"
    models = {**evaluate(steps, plain), **evaluate(steps, retained)}
    return {
        f"teacher {SECOND_TEACHER}": accuracies(models[SECOND_TEACHER]),
        "before": accuracies(models["v2"]),
        "increment with retention": accuracies(models[retained]),
        "plain fine-tuning": accuracies(models[plain]),
    }


def evaluate(steps: Steps, version: str, *options: str) -> dict[str, ModelScores]:
    """Models by name, from ``kdkit evaluate --json``."""
    from kdkit.core.evaluation.scores import Evaluation

    report = json.loads(steps.capture("evaluate", version, *options, "--json"))
    return {model.name: model for model in Evaluation.load(steps.root / report["file"]).models}


def accuracies(model: ModelScores) -> dict[str, float]:
    return {domain: score.metrics["accuracy"] for domain, score in model.domains.items()}


def score_swapped_answers(steps: Steps, seed: int) -> dict[str, float]:
    """Chance level: every question gets the correct answer to another question of its domain."""
    from kdkit.core.data.load import load_index
    from kdkit.core.project.project import Project

    groups = defaultdict[str, list["Sample"]](list)
    for sample in load_index(Project(steps.root)).samples:
        if sample.split == "test":
            groups[sample.domain].append(sample)
    answers, draw = dict[str, str](), random.Random(seed)
    for group in groups.values():
        texts = draw.sample([sample.text for sample in group], len(group))
        answers |= {sample.id: text for sample, text in zip(group, texts, strict=True)}
    return score_answers(steps, answers)


def score_best_of_five(steps: Steps, version: str) -> dict[str, float]:
    """Accuracy of the answers that dual encoders choose, each for the modalities that it knows."""
    chosen: dict[str, str] = {}
    for teacher, modalities in RERANKERS.items():
        steps.run("add-teacher", teacher)
        domains = [word for m in modalities for task in TASKS for word in ("--domain", f"{task}/{m}")]
        options = ["--version", version, "--samples", "5", "--rerank", teacher, "--max-new", "16", *domains]
        rows = json.loads(steps.capture("answer", *options, "--json"))
        chosen |= {row["id"]: row["text"] for row in rows}
    return score_answers(steps, chosen)


def score_answers(steps: Steps, answers: Mapping[str, str]) -> dict[str, float]:
    """Domain -> accuracy of given answers, by the project's evaluation task."""
    from kdkit.core.data.load import load_index
    from kdkit.core.evaluation.answers import GivenAnswers
    from kdkit.core.evaluation.evaluator import make_evaluator
    from kdkit.core.project.project import Project

    project = Project(steps.root)
    index = load_index(project)
    samples = [sample for sample in index.samples if sample.id in answers]
    found = make_evaluator(project.registry, project.catalogue, index).task.evaluate(GivenAnswers(answers), samples)
    return {score.domain: score.metrics["accuracy"] for score in found}


def mean_over(found: Mapping[str, float], task: str, modalities: tuple[str, ...]) -> float:
    """Mean accuracy of one task over modalities, in percent."""
    return 100 * sum(found[f"{task}/{modality}"] for modality in modalities) / len(modalities)


def table_of(methods: Mapping[str, Mapping[str, float]], modalities: tuple[str, ...]) -> str:
    """A row per method and a column per task, as in the paper's tables."""
    rows = []
    for name, found in methods.items():
        means = [mean_over(found, task, modalities) for task in TASKS]
        rows.append((name, *(f"{value:.1f}" for value in (*means, sum(means) / len(means)))))
    heads = ("", "VG", "ROC", "RC", "MIA", "average")
    return text_table(Table(heads, rows, "lrrrrr"))


def summary(methods: Mapping[str, Mapping[str, float]], increments: Mapping[str, Mapping[str, float]]) -> None:
    """The tables, and what became of old and new."""
    print(f"Test split, mean over {', '.join(OLD)}, in %: VG Recall@0.5, ROC recall, RC ROUGE-L, MIA mBMR of answers")
    print(table_of(methods, OLD))
    versions = {name: found for name, found in increments.items() if not name.startswith("teacher")}
    print(f"\nOne more teacher: the old modalities ({', '.join(OLD)})")
    print(table_of(versions, OLD))
    print(f"\nOne more teacher: the new modality ({NEW})")
    print(table_of(increments, (NEW,)))
    before, kept, plain = (versions[name] for name in ("before", "increment with retention", "plain fine-tuning"))
    old = [average(one, OLD) - average(before, OLD) for one in (kept, plain)]
    new = [average(one, (NEW,)) - average(before, (NEW,)) for one in (kept, plain)]
    print(
        f"\nOld modalities: {old[0]:+.1f} points with retention, {old[1]:+.1f} by plain fine-tuning. "
        f"{NEW}: {new[0]:+.1f} and {new[1]:+.1f}."
    )
    console.say("One seed, few questions: differences of a few points mean nothing (docs/explanation/benchmarks.md).")


def average(found: Mapping[str, float], modalities: tuple[str, ...]) -> float:
    """Mean over tasks and modalities, in percent."""
    return sum(mean_over(found, task, modalities) for task in TASKS) / len(TASKS)
