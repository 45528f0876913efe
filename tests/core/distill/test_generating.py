"""The second family of students, token logits, goes through the same store, plan, task and loop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from kdkit.core.catalogue import Entry
from kdkit.core.contracts import LossSpec, SignalSource, Silent, StudentSpec, TrustTable
from kdkit.core.data import load_table
from kdkit.core.distill.batches import BatchSchedule
from kdkit.core.distill.build import build
from kdkit.core.distill.checkpoint import Checkpoints
from kdkit.core.distill.plan import make_plan
from kdkit.core.distill.run import Prepared, make_feed
from kdkit.core.distill.survey import Survey
from kdkit.core.distill.train import train
from kdkit.core.features import FeatureStore
from kdkit.core.features.extraction import extract
from kdkit.core.recipe import Recipe
from kdkit.core.workspace import Workspace
from tests.toy_project import make_project
from tests.toy_vlm import ToyVlmTeacher

STUDENT = StudentSpec(
    name="toy-vlm", summary="toy", factory="tests.toy_vlm:make_toy_vlm", loader="tests.toy_vlm:load_toy_vlm"
)
LOSS = LossSpec(name="answers", summary="toy", factory="tests.toy_vlm:TopKAnswerLoss", signals=("answer", "answer_ids"))
RECIPE = Recipe.model_validate(
    {
        "name": "generating",
        "summary": "toy",
        "losses": [{"name": "answers"}],
        "trust": {"policy": "all"},
        "optimiser": {"lr": 0.01, "batch_size": 16, "steps": 60},
    }
)


@dataclass(frozen=True)
class Opened:
    name: str
    model: ToyVlmTeacher
    signals: SignalSource
    fingerprint: str
    parts: dict[str, str]


def generating_project(root: Path) -> Workspace:
    workspace = make_project(root, teachers={}, domains=("ct",), train=10, held_out=2)
    registry = root / "registry.yaml"
    text = registry.read_text(encoding="utf-8").replace("family: toy, config: {width: 12}", "family: toy-vlm")
    registry.write_text(text, encoding="utf-8")
    contents = dict(workspace.catalogue.contents)
    contents["student"] = (*contents["student"], Entry(STUDENT, "kdkit-toy", "1.0"))
    contents["loss"] = (*contents["loss"], Entry(LOSS, "kdkit-toy", "1.0"))
    fresh = Workspace(root)
    fresh.__dict__["catalogue"] = replace(workspace.catalogue, contents=contents)
    return fresh


def look(workspace: Workspace) -> Survey:
    table = load_table(workspace)
    teacher = ToyVlmTeacher()
    extract(workspace, [Opened("vlm", teacher, teacher, "f" * 64, {"weights": "0"})], table)
    store = FeatureStore(workspace.features)
    one = np.ones((1, 1))
    trust = TrustTable(("vlm",), table.domains, one, one, one, np.array([6]), np.array([0.0]))
    return Survey(table, store, {"vlm": store.column("vlm")}, trust, one)


def test_a_generating_student_learns_from_stored_answers(tmp_path: Path) -> None:
    workspace = generating_project(tmp_path / "project")
    survey = look(workspace)
    plan = make_plan(RECIPE, survey, None, {}, seed=0)
    made = build(workspace, plan, survey, None, Silent())
    assert [spec.name for spec in made.teachings[0].raw] == ["answer", "answer_ids"]
    accelerator = Accelerator(cpu=True)
    schedule = BatchSchedule(plan.pools, batch_size=plan.batch_size, steps=plan.settings.steps, seed=0)
    feed = make_feed(Prepared(plan, survey, None), made, accelerator, schedule)
    targets = feed.make(0).targets["vlm"]
    assert (targets["answer"].dtype, targets["answer_ids"].dtype) == (torch.float16, torch.int32)
    progress = train(
        made.task, feed, plan.settings, accelerator=accelerator, checkpoints=Checkpoints(tmp_path), reporter=Silent()
    )
    assert progress.log[-1]["answers"] < 0.5 * progress.log[0]["answers"]
