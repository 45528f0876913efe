"""A project with a tiny answering student, and live teachers that score the student's own answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from kdkit.core.contracts import Silent
from kdkit.core.distill.loop.accelerator import make_accelerator
from kdkit.core.distill.loop.dataloader import DistillBatch
from kdkit.core.distill.loop.sampler import BatchSampler
from kdkit.core.distill.model.build import Build
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import Prepared, prepare
from kdkit.core.distill.training import train_plan
from kdkit.core.project.project import Project
from kdkit.core.teachers.add import add_teacher
from tests.core.distill.building import build_prepared
from tests.plugins.students.clinkd.tiny import make

WORDS = ["left", "right", "top", "Where", "is", "it"]
SIZES = {"hidden": 32, "heads": 2, "kv_heads": 1, "layers": 1, "vision_layers": 1, "words": WORDS}
STUDENT = {"sizes": SIZES, "max_tokens": 80, "max_answer": 28, "max_pixels": 3136, "system": ""}
DOMAINS = ("vqa/ct", "vqa/mri")
REGISTRY = f"""\
version: 1
student: {{family: clinkd, config: {json.dumps(STUDENT)}}}
teachers: {{}}
data:
  - {{source: jsonl, path: data/samples.jsonl}}
recipe: ./own.yaml
"""
RECIPE = """\
name: own
summary: quick
losses: {losses}
trust: {{policy: all, options: {{unmeasured: true}}}}
optimizer: {{lr: 0.003, batch_size: 4, steps: {steps}}}
"""
LIVE = {"loader": "image-text-to-text", "license": "mit", "options": {"k": 400}, "signals": "live"}
LOSSES = [{"name": "answer-ce", "weight": 0.5}, {"name": "token-kd", "options": {"divergence": "reverse-kl"}}]


def make_project(root: Path, on_policy: Mapping[str, Any] | None, *, live: bool = True, **recipe: Any) -> Project:
    """24 training samples in two domains; its teacher ``first`` is another tiny model, with every token named."""
    (root / "data").mkdir(parents=True)
    rows = [_row(root / "data", number, "train") for number in range(24)]
    rows += [_row(root / "data", 24 + number, "calibration") for number in range(4)]
    (root / "data" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (root / "registry.yaml").write_text(REGISTRY, encoding="utf-8")
    set_recipe(root, on_policy, **recipe)
    add(root, "first", live=live)
    return Project(root)


def add(root: Path, name: str, *, seed: int = 1, live: bool = True, **entry: Any) -> None:
    """One more teacher, a tiny model with random weights."""
    make(seed=seed, sizes=SIZES, max_tokens=80, max_answer=28, max_pixels=3136, system="").save(root / "models" / name)
    about = {**LIVE, "from": f"local:models/{name}", **({} if live else {"signals": "stored"}), **entry}
    add_teacher(Project(root), name, about)


def set_recipe(root: Path, on_policy: Mapping[str, Any] | None, *, losses: Any = LOSSES, steps: int = 5) -> None:
    part = "" if on_policy is None else f"on_policy: {json.dumps(on_policy)}\n"
    text = RECIPE.format(losses=json.dumps(losses), steps=steps) + part
    (root / "own.yaml").write_text(text, encoding="utf-8")


def _row(folder: Path, number: int, split: str) -> dict[str, Any]:
    name = f"{number}.png"
    Image.new("RGB", (56, 56), (8 * number, 255 - 8 * number, 99)).save(folder / name)
    extra = {"task": "vqa", "messages": [{"role": "user", "content": f"<image>Where is it {number}"}]}
    about = {"domain": DOMAINS[number % 2], "split": split, "extra": extra}
    return {"id": f"s{number:02}", "image": name, "text": WORDS[number % 3], **about}


class Stopped(Exception):
    """What ends a run at a step."""


@dataclass
class StopsAt(Silent):
    """Ends the run during a step; the checkpoint of the step before is there."""

    step: int

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG002  # the protocol's
        if label == "distill" and done == self.step:
            raise Stopped


def train(root: Path, *, stopped_at: int | None = None) -> dict[str, torch.Tensor]:
    """The weights after all steps, without an evaluation or a version.

    Args:
        stopped_at: step during which the run ends, to be continued by another one.
    """
    project, options = Project(root), Options(cpu=True, checkpoint_seconds=0 if stopped_at else 60)
    folder, place = project.runs / "trained", make_accelerator("no", cpu=True)
    if stopped_at:
        with pytest.raises(Stopped):
            train_plan(project, prepare(project, options, Silent()), options, place, folder, StopsAt(stopped_at))
        assert list(folder.glob("step-*"))
    trained = train_plan(project, prepare(project, options, Silent()), options, place, folder, Silent())
    shutil.rmtree(folder)
    return {name: x.clone() for name, x in trained.task.student.state_dict().items()}


def same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Course:
    """The batches of a run without training: the student does not change."""

    def __init__(self, root: Path) -> None:
        project, options = Project(root), Options(cpu=True)
        self.prepared: Prepared = prepare(project, options, Silent())
        self.built: Build = build_prepared(project, self.prepared)
        plan = self.prepared.plan
        self.sampler = BatchSampler(
            plan.pools, batch_size=plan.batch_size, steps=plan.settings.steps, seed=plan.settings.seed
        )
        self.loader: Any = self.built.dataloader(plan, self.sampler, make_accelerator("no", cpu=True))

    @property
    def student(self) -> Any:
        return self.built.task.student

    def batches(self, start: int = 0) -> dict[int, DistillBatch]:
        return dict(self.loader.batches(start))
