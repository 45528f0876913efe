"""The second family of students, which answer: the same store, trust, plan, task, loop, guard and evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from kdkit.core.contracts import LoaderSpec, LossSpec, Silent, StudentSpec, TaskSpec, TrustTable
from kdkit.core.contracts.specs import Spec
from kdkit.core.data import load_index
from kdkit.core.distill.loop.checkpoint import Checkpoints
from kdkit.core.distill.loop.dataloader import DistillDataLoader
from kdkit.core.distill.loop.sampler import BatchSampler
from kdkit.core.distill.loop.train import train
from kdkit.core.distill.options import Options
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.plan.plan import make_plan
from kdkit.core.distill.run import distill
from kdkit.core.evaluation.evaluate import evaluate_version
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.answers import read_answers, rows_to_answer
from kdkit.core.features.extract.extraction import extract
from kdkit.core.features.extract.missing import extract_missing, find_missing
from kdkit.core.plugin_system.catalogue import Entry, Family
from kdkit.core.project.project import Project
from kdkit.core.project.recipe import Recipe
from kdkit.core.teachers import OpenTeacher
from kdkit.core.teachers.add import add_teacher
from tests.core.distill.building import build_plan
from tests.toy_project import make_project, toy_catalogue, write_images
from tests.toy_vlm import ToyVlmTeacher

STUDENT = StudentSpec(
    name="toy-vlm",
    summary="toy",
    factory="tests.toy_vlm:make_toy_vlm",
    loader="tests.toy_vlm:load_toy_vlm",
    task="toy-answers",
)
TASK = TaskSpec(name="toy-answers", summary="toy", factory="tests.toy_vlm:ToyAnswers", reads="answers")
LOADER = LoaderSpec(name="toy-vlm", summary="toy", factory="tests.toy_vlm:load_toy_vlm_teacher")
LOSS = LossSpec(name="answers", summary="toy", factory="tests.toy_vlm:TopKAnswerLoss", signals=("answer", "answer_ids"))
RECIPE = Recipe.model_validate(
    {
        "name": "generating",
        "summary": "toy",
        "losses": [{"name": "answers"}],
        "trust": {"policy": "all"},
        "optimizer": {"lr": 0.01, "batch_size": 16, "steps": 60},
    }
)


def generating_project(root: Path, domains: Sequence[str] = ("ct",), held_out: int = 2) -> Project:
    make_project(root, teachers={}, domains=domains, train=10, held_out=held_out)
    registry = root / "registry.yaml"
    text = registry.read_text(encoding="utf-8").replace("family: toy, config: {width: 12}", "family: toy-vlm")
    registry.write_text(text, encoding="utf-8")
    return reopened(root)


def reopened(root: Path) -> Project:
    """The project as a fresh process with a plugin of these models would see it."""
    catalogue = toy_catalogue()
    contents = dict(catalogue.contents)
    added: dict[Family, Spec] = {"student": STUDENT, "loss": LOSS, "task": TASK, "loader": LOADER}
    for family, spec in added.items():
        contents[family] = (*contents[family], Entry(spec, "kdkit-toy", "1.0"))
    return Project(root).with_catalogue(replace(catalogue, contents=contents))


def add_vlm(root: Path, name: str, **config: object) -> None:
    folder = root / "models" / name
    folder.mkdir(parents=True)
    (folder / "toy_vlm_teacher.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({"none": torch.zeros(1)}, folder / "weights.safetensors")
    add_teacher(reopened(root), name, {"from": f"local:models/{name}", "loader": "toy-vlm", "license": "mit"})


def look(project: Project) -> TeachingInventory:
    table = load_index(project)
    teacher = ToyVlmTeacher()
    store = FeatureStore(project.features)
    extract(store, [OpenTeacher("vlm", teacher, teacher, "f" * 64, {"weights": "0"})], table)
    one = np.ones((1, 1))
    trust = TrustTable(("vlm",), table.domains, one, one, one, np.array([6]), np.array([0.0]))
    return TeachingInventory(table, {"vlm": store.column("vlm")}, trust, one)


def test_a_generating_student_learns_from_stored_answers(tmp_path: Path) -> None:
    project = generating_project(tmp_path / "project")
    inventory = look(project)
    plan = make_plan(RECIPE, inventory, None, {}, seed=0)
    made = build_plan(project, plan, inventory, None, Silent())
    assert [spec.name for spec in made.targets[0].raw] == ["answer", "answer_ids"]
    accelerator = Accelerator(cpu=True)
    schedule = BatchSampler(plan.pools, batch_size=plan.batch_size, steps=plan.settings.steps, seed=0)
    feed = made.dataloader(plan, schedule, accelerator)
    assert isinstance(feed, DistillDataLoader)
    targets = feed.make(0).targets["vlm"]
    assert (targets["answer"].dtype, targets["answer_ids"].dtype) == (torch.float16, torch.int32)
    progress = train(
        made.task, feed, plan.settings, accelerator=accelerator, checkpoints=Checkpoints(tmp_path), reporter=Silent()
    )
    assert progress.log[-1]["answers"] < 0.5 * progress.log[0]["answers"]


def test_it_learns_one_teacher_and_then_another_without_forgetting(tmp_path: Path) -> None:
    root = tmp_path / "project"
    generating_project(root, ("ct", "mri"), held_out=10)
    (root / "toy.yaml").write_text(
        "name: toy\nsummary: toy\nlosses: [{name: answers}]\ntrust: {policy: threshold, options: {value: 0.8}}\n"
        "optimizer: {lr: 0.01, batch_size: 24, steps: 150}\nincrement: {replay: 0.5, steps: 1.0}\n",
        encoding="utf-8",
    )
    add_vlm(root, "first", seed=0, sureness=30.0, knows=["ct", "mri"])
    first = distill(reopened(root), Options(cpu=True))
    assert first is not None
    rows = write_images(root / "images", ("xray",), train=10, held_out=10, seed=1)
    with open(root / "images" / "samples.jsonl", "a", encoding="utf-8") as manifest:
        manifest.write("".join(json.dumps(row) + "\n" for row in rows))
    add_vlm(root, "second", seed=1, sureness=30.0, knows=["xray"])
    second = distill(reopened(root), Options(cpu=True, incremental=True))
    assert second is not None
    assert not second.version.refused

    learnt = {teacher.name: sorted(teacher.domains) for teacher in second.version.lineage.teachers}
    assert learnt == {"first": ["ct", "mri"], "second": ["xray"]}
    found = evaluate_version(reopened(root))
    before, after = (found.evaluation.model(name).domains for name in ("v1", "v2"))
    assert after["xray"].metrics["accuracy"] > before["xray"].metrics["accuracy"] + 0.1
    for domain in ("ct", "mri"):
        assert after[domain].metrics["accuracy"] > max(0.8, before[domain].metrics["accuracy"] - 0.1)
    assert found.evaluation.settings["task"] == "toy-answers"
    oracle = found.evaluation.model("oracle")
    assert oracle.chosen == {"ct": "first", "mri": "first", "xray": "second"}


def test_answers_are_asked_once_and_go_on_after_a_kill(tmp_path: Path) -> None:
    root = tmp_path / "project"
    generating_project(root)
    add_vlm(root, "vlm", seed=0)
    project = reopened(root)
    table = load_index(project)
    extract_missing(project, table)
    column = FeatureStore(project.features).column("vlm")
    path = column.folder / "answers.jsonl"
    whole, answers = path.read_bytes(), read_answers(column.folder)
    assert sorted(key[0] for key in answers) == sorted(table.ids[row] for row in rows_to_answer(table, column))
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:10])
    missing = find_missing(FeatureStore(project.features), {"vlm": column.fingerprint}, table)
    assert missing.counts == {"vlm": len(lines) - 3}
    extract_missing(project, table)
    assert read_answers(column.folder) == answers
    assert extract_missing(project, table) == ()
