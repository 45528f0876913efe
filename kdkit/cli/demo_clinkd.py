"""``kdkit demo clinkd``: a student that answers questions, through the public commands, without a download."""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
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
"""In the project: method -> domain -> accuracy on the test split, the same for increments, the gain, and the gates."""
ALPHA, TEMPERATURE = 8.0, 1.0
"""Of Pseudo-KD (eq. 16). The paper has 0.5 and 0.5; answers that err are worth less than its teacher."""

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
PSEUDO_KD: Mapping[str, Mapping[str, Any]] = {
    "answer-ce": {"weight": round(1 / (1 + ALPHA), 4)},
    "token-kd": {"weight": round(ALPHA / (1 + ALPHA), 4), "options": {"temperature": TEMPERATURE}},
}
PLAIN = {"replay": 0.0, **LENGTH, "without_replay": {"weight": 0.0}, "repair": None}


@dataclass(frozen=True)
class Sizes:
    """Pictures of each modality in each split, and the length of training."""

    seed: int
    train: int
    calibration: int
    test: int
    epochs: float = 4.0


@dataclass(frozen=True)
class Gain:
    """What Pseudo-KD gains over the answers alone, in points, with its 95 % interval over ``pictures``."""

    points: float
    low: float
    high: float
    pictures: int

    def to_json(self) -> dict[str, float]:
        return dict(vars(self))


def clinkd_demo(steps: Steps, sizes: Sizes) -> None:
    start = time.monotonic()
    console.say(BANNER)
    steps.write_registry(REGISTRY.format(domains=", ".join(OLD), **vars(sizes)))
    write_recipe(steps.root / "pseudo-kd.yaml", "clinkd", INCREMENT, PSEUDO_KD)
    write_recipe(steps.root / "answers.yaml", "sft", INCREMENT)
    write_recipe(steps.root / "plain.yaml", "sft", PLAIN)
    heading(f"Data: {', '.join(OLD)}; four questions about each picture")
    steps.run("data", "check")
    heading("A teacher that answers: its next-token distributions are stored once")
    steps.run("add-teacher", FIRST_TEACHER)
    steps.run("features", "extract")
    steps.run("trust")
    methods, gain = compare_methods(steps, sizes.seed)
    increments = compare_increments(steps, sizes)
    heading("Best of five sampled answers: boxes by agreement, texts by a dual encoder, where calibration shows a gain")
    methods["Pseudo-KD, best of 5"], gates = score_best_of_five(steps, "v2")
    found = {"methods": methods, "increments": increments, "gain": gain.to_json(), "gates": gates}
    (steps.root / FIGURES).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    heading(f"Done in {time.monotonic() - start:.0f} s")
    summary(methods, increments, gain, gates)


def write_recipe(
    path: Path, base: str, increment: Mapping[str, Any], losses: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """A built-in recipe with another ``increment``, a warm-up, which an untrained student needs, and other losses."""
    from ruamel.yaml import YAML

    from kdkit.core.plugin_system.discovery import load_catalogue
    from kdkit.core.project.recipe_file import recipe_file

    recipe = YAML().load(recipe_file(base, load_catalogue()).text)
    recipe["name"] = path.stem
    recipe["optimizer"]["warmup"] = 0.1
    recipe["increment"] = dict(increment)
    for loss in recipe["losses"] if losses else ():
        loss["weight"] = (losses or {})[loss["name"]]["weight"]
        loss.get("options", {}).update((losses or {})[loss["name"]].get("options", {}))
    with open(path, "w", encoding="utf-8") as handle:
        YAML().dump(recipe, handle)


def compare_methods(steps: Steps, seed: int) -> tuple[dict[str, Mapping[str, float]], Gain]:
    """Method -> domain -> accuracy of the baseline and Pseudo-KD, each from scratch, and what Pseudo-KD gains."""
    heading("The baseline: the answers alone, no teacher")
    steps.run("distill", "--recipe", "./answers.yaml", "--seed", str(seed))
    heading("Pseudo-KD: the answers and the teacher's distributions")
    steps.run("distill", "--seed", str(seed))
    heading("Evaluation on the test split, which no step has read before")
    before, after = (evaluate(steps, version, "--alone") for version in ("v1", "v2"))
    found: dict[str, Mapping[str, float]] = {
        "chance": score_swapped_answers(steps, seed),
        f"teacher {FIRST_TEACHER}": accuracies(after[FIRST_TEACHER]),
        "answers alone": accuracies(before["v1"]),
        "Pseudo-KD": accuracies(after["v2"]),
    }
    return found, measure_gain(before["v1"], after["v2"])


def measure_gain(before: ModelScores, after: ModelScores) -> Gain:
    """The mean change over tasks and modalities; the four questions about one picture are drawn together."""
    import numpy as np

    from kdkit.core.evaluation.metrics import paired_difference

    rows = [
        (name.rpartition("-")[0], old, new)
        for domain in before.domains
        for name, old, new in zip(
            before.domains[domain].ids,
            before.domains[domain].outcomes["accuracy"],
            after.domains[domain].outcomes["accuracy"],
            strict=True,
        )
    ]
    pictures, old, new = zip(*rows, strict=True)
    groups = np.unique(np.array(pictures), return_inverse=True)[1]
    points = paired_difference(np.array(old), np.array(new), groups=groups)
    change, low, high = (100 * value for value in points)
    return Gain(change, low, high, len(set(pictures)))


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
    plain, retained = "v3", "v4"
    models = {**evaluate(steps, plain, "--alone"), **evaluate(steps, retained)}
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


def score_best_of_five(steps: Steps, version: str) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Accuracy of the answers that are chosen, each modality with the dual encoder that knows it; and the gates."""
    chosen, gates = dict[str, str](), list[dict[str, Any]]()
    for teacher, modalities in RERANKERS.items():
        steps.run("add-teacher", teacher, "--domains", "")  # it chooses, and teaches nothing
        domains = [word for m in modalities for task in TASKS for word in ("--domain", f"{task}/{m}")]
        options = ["--version", version, "--samples", "5", "--rerank", teacher, "--max-new", "16", *domains]
        gates += json.loads(steps.capture("best-of-n", *options, "--json"))["domains"].values()
        rows = json.loads(steps.capture("answer", *options, "--json"))
        chosen |= {row["id"]: row["text"] for row in rows}
    return score_answers(steps, chosen), gates


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


def summary(
    methods: Mapping[str, Mapping[str, float]],
    increments: Mapping[str, Mapping[str, float]],
    gain: Gain,
    gates: Sequence[Mapping[str, Any]],
) -> None:
    """The tables, and what became of old and new."""
    print(f"Test split, mean over {', '.join(OLD)}, in %: VG Recall@0.5, ROC recall, RC ROUGE-L, MIA mBMR of answers")
    print(table_of(methods, OLD))
    print(
        f"\nPseudo-KD against the answers alone: {gain.points:+.1f} points ({gain.low:+.1f} to {gain.high:+.1f}, over "
        f"{gain.pictures} pictures; another seed trains another student)"
    )
    print("\nBest of 5, measured on the calibration split:")
    rows = [
        (one["domain"], one["rule"], f"{one['points']:+.1f} ({one['low']:+.1f} to {one['high']:+.1f})", one["why"])
        for one in gates
    ]
    print(text_table(Table(("domain", "used", "change", "why"), rows, "llrl")))
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
