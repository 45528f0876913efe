"""``kdkit demo clinkd``: a student that answers questions, through the public commands, without a download."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.cli import console
from kdkit.cli.demo import call, heading

if TYPE_CHECKING:
    from kdkit.core.evaluation.scores import ModelScores

OLD, NEW = ("mri", "dermoscopy", "xray"), "ct"
TASKS = ("vg", "roc", "rc", "mia")
FIRST_TEACHER, SECOND_TEACHER = "demo-reader", "demo-scanner"
RERANKERS = {"demo-radio": ("mri", "xray"), "demo-tissue": ("dermoscopy",)}
FIGURES = "figures.json"
"""In the project: method -> domain -> accuracy on the test split, and the same for the increment."""
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
a batch (docs/benchmarks.md compares others): twice as many as would be seen as often as in a run from scratch."""
PLAIN = {"replay": 0.0, **LENGTH, "without_replay": {"weight": 0.0}}


@dataclass(frozen=True)
class Sizes:
    """Pictures of each modality in each split, and the length of training."""

    seed: int
    train: int
    calibration: int
    test: int
    epochs: float = 4.0


def clinkd_demo(folder: str, sizes: Sizes) -> None:
    """Everything, into a new folder."""
    begun, root = time.monotonic(), Path(folder)
    console.say(BANNER)
    write_project(root, sizes)
    console.say(f"\nwrote {root / 'registry.yaml'}")
    heading(f"Data: {', '.join(OLD)}; four questions about each picture")
    call(root, "data", "check")
    heading("A teacher that answers: its next-token distributions are stored once")
    call(root, "add-teacher", FIRST_TEACHER)
    call(root, "features", "extract")
    call(root, "trust")
    methods = side_by_side(root, sizes.seed)
    increments = one_more_teacher(root, sizes)
    heading(
        "Selective generation (SASG): of five drawn answers, the one that a dual encoder finds nearest to the image"
    )
    methods["Pseudo-KD, SASG of 5"] = selective(root, "v2")
    figures = json.dumps({"methods": methods, "increments": increments}, indent=1)
    (root / FIGURES).write_text(figures + "\n", encoding="utf-8")
    heading(f"Done in {time.monotonic() - begun:.0f} s")
    summary(methods, increments)


def write_project(root: Path, sizes: Sizes) -> None:
    """``registry.yaml`` and the recipes."""
    root.mkdir(parents=True)
    text = REGISTRY.format(domains=", ".join(OLD), **vars(sizes))
    (root / "registry.yaml").write_text(text, encoding="utf-8")
    write_recipe(root / "pseudo-kd.yaml", "clinkd", INCREMENT)
    write_recipe(root / "answers.yaml", "sft", INCREMENT)
    write_recipe(root / "plain.yaml", "sft", PLAIN)


def write_recipe(path: Path, base: str, increment: Mapping[str, Any]) -> None:
    """A built-in recipe with another ``increment``, and a warm-up, which a student that starts from nothing needs."""
    from ruamel.yaml import YAML

    from kdkit.core.plugin_system.discovery import load_catalogue
    from kdkit.core.project.recipe import recipe_file

    recipe = YAML().load(recipe_file(base, load_catalogue()).text)
    recipe["name"] = path.stem
    recipe["optimizer"]["warmup"] = 0.1
    recipe["increment"] = dict(increment)
    with open(path, "w", encoding="utf-8") as handle:
        YAML().dump(recipe, handle)


def side_by_side(root: Path, seed: int) -> dict[str, Mapping[str, float]]:
    """The baseline, Pseudo-KD and the RoPE variants, each a version from scratch; v2 is current in the end."""
    heading("The baseline: the answers alone, no teacher")
    call(root, "distill", "--recipe", "./answers.yaml", "--seed", str(seed))
    heading("Pseudo-KD: the answers and the teacher's distributions")
    call(root, "distill", "--seed", str(seed))
    registry = root / "registry.yaml"
    before = registry.read_text(encoding="utf-8")
    for variant in VARIANTS:
        heading(f"Pseudo-KD with the RoPE variant {variant}")
        registry.write_text(before.replace("rope: mrope", f"rope: {variant}"), "utf-8")
        call(root, "distill", "--seed", str(seed))
    registry.write_text(before, encoding="utf-8")
    call(root, "rollback", "v2")
    heading("The test split, which nothing has looked at until now")
    found: dict[str, Mapping[str, float]] = {}
    names = ["answers alone", "Pseudo-KD", *(f"Pseudo-KD, {variant}" for variant in VARIANTS)]
    for number, name in enumerate(names, start=1):
        models = scores(root, f"v{number}", "--alone")
        if number == 1:
            found["chance"] = swapped(root, seed)
            found[f"teacher {FIRST_TEACHER}"] = accuracies(models[FIRST_TEACHER])
        found[name] = accuracies(models[f"v{number}"])
    return found


def one_more_teacher(root: Path, sizes: Sizes) -> Mapping[str, Mapping[str, float]]:
    """A new specialist with its modality: added with retention, and by plain fine-tuning."""
    heading(f"A second teacher appears, and with it a new modality: {NEW}")
    path = root / "registry.yaml"
    more = MORE_DATA.format(domain=NEW, **vars(sizes))
    path.write_text(path.read_text(encoding="utf-8").replace("\noptimizer:", f"{more}\noptimizer:"), "utf-8")
    console.say(f"added to {path}:\n{more.rstrip()}")
    call(root, "add-teacher", SECOND_TEACHER)
    heading(f"First, to compare with: plain fine-tuning on {NEW} alone. The guard should refuse it")
    call(root, "distill", "--incremental", "--recipe", "./plain.yaml", "--seed", str(sizes.seed), allowed=(0, 1))
    call(root, "rollback", "v2")
    heading("Then the increment: both teachers, and old samples replayed beside the new ones")
    call(root, "distill", "--incremental", "--seed", str(sizes.seed), allowed=(0, 1))
    call(root, "versions")
    plain, kept = f"v{3 + len(VARIANTS)}", f"v{4 + len(VARIANTS)}"
    models = {**scores(root, plain), **scores(root, kept)}
    found = {name: accuracies(models[name]) for name in ("v2", kept, plain)}
    return {
        f"teacher {SECOND_TEACHER}": accuracies(models[SECOND_TEACHER]),
        "before": found["v2"],
        "increment with retention": found[kept],
        "plain fine-tuning": found[plain],
    }


def scores(root: Path, version: str, *options: str) -> dict[str, ModelScores]:
    """Models by name, from ``kdkit evaluate --json``."""
    from kdkit.core.evaluation.scores import Evaluation

    report = json.loads(silent_call(root, "evaluate", version, *options, "--json"))
    return {model.name: model for model in Evaluation.load(root / report["file"]).models}


def silent_call(root: Path, *arguments: str) -> str:
    """Standard output of a command, which is not shown."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        call(root, *arguments)
    return out.getvalue()


def accuracies(model: ModelScores) -> dict[str, float]:
    """Domain -> accuracy."""
    return {domain: score.metrics["accuracy"] for domain, score in model.domains.items()}


def swapped(root: Path, seed: int) -> dict[str, float]:
    """What can be scored without looking: every question gets the right answer to another one of its domain."""
    import random

    from kdkit.core.data.load import load_index

    table = load_index(console.project(str(root)))
    groups: dict[str, list[Any]] = {}
    for sample in table.samples:
        if sample.split == "test":
            groups.setdefault(sample.domain, []).append(sample)
    answers, draw = dict[str, str](), random.Random(seed)
    for group in groups.values():
        texts = draw.sample([sample.text for sample in group], len(group))
        answers |= {sample.id: text for sample, text in zip(group, texts, strict=True)}
    return judged(root, answers)


def selective(root: Path, version: str) -> dict[str, float]:
    """Accuracy of the answers that dual encoders choose, each for the modalities that it knows."""
    chosen: dict[str, str] = {}
    for teacher, modalities in RERANKERS.items():
        call(root, "add-teacher", teacher)
        domains = [word for m in modalities for task in TASKS for word in ("--domain", f"{task}/{m}")]
        options = ["--version", version, "--samples", "5", "--rerank", teacher, "--max-new", "16", *domains]
        rows = json.loads(silent_call(root, "answer", *options, "--json"))
        chosen |= {row["id"]: row["text"] for row in rows}
    return judged(root, chosen)


def judged(root: Path, answers: Mapping[str, str]) -> dict[str, float]:
    """Domain -> accuracy of given answers, by the project's own task."""
    from kdkit.core.data.load import load_index
    from kdkit.core.evaluation.evaluator import make_evaluator

    project = console.project(str(root))
    table = load_index(project)
    samples = [sample for sample in table.samples if sample.id in answers]
    found = make_evaluator(project.registry, project.catalogue, table).task.evaluate(Given(answers), samples)
    return {score.domain: score.metrics["accuracy"] for score in found}


class Given:
    """Answers that are there already, as the task reads them."""

    name = "given"

    def __init__(self, answers: Mapping[str, str]) -> None:
        self._answers = answers

    def answer(self, samples: Any) -> list[str]:
        return [self._answers[sample.id] for sample in samples]


def mean_over(found: Mapping[str, float], task: str, modalities: tuple[str, ...]) -> float:
    """Of one task over modalities, in percent."""
    return 100 * sum(found[f"{task}/{modality}"] for modality in modalities) / len(modalities)


def table_of(methods: Mapping[str, Mapping[str, float]], modalities: tuple[str, ...]) -> str:
    """A row per method and a column per task, as in the paper's tables."""
    rows = []
    for name, found in methods.items():
        means = [mean_over(found, task, modalities) for task in TASKS]
        rows.append((name, *(f"{value:.1f}" for value in (*means, sum(means) / len(means)))))
    heads = ("", "VG", "ROC", "RC", "MIA", "average")
    return console.table(heads, rows, "lrrrrr")


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
    console.say(
        "One seed, few questions: differences of a few points between methods mean nothing (docs/benchmarks.md)."
    )


def average(found: Mapping[str, float], modalities: tuple[str, ...]) -> float:
    """Mean over tasks and modalities, in percent."""
    return sum(mean_over(found, task, modalities) for task in TASKS) / len(TASKS)
