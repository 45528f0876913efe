"""The generating student in the engine: rows that can be gathered, and it learns."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn import functional as F

from kdkit.core.contracts import LossInput, Sample, SignalSpec, Silent, TrustTable
from kdkit.core.data import load_index
from kdkit.core.distill.loop.checkpoint import Checkpoints
from kdkit.core.distill.loop.sampler import BatchSampler
from kdkit.core.distill.loop.train import train
from kdkit.core.distill.model.projection import TeacherProjection
from kdkit.core.distill.model.task import DistillTask, Term
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.plan.plan import make_plan
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.extraction import extract
from kdkit.core.project.project import Project
from kdkit.core.project.recipe import Recipe
from kdkit.core.teachers import OpenTeacher
from kdkit.plugins.students.clinkd.student import ClinkdStudent
from tests.core.distill.building import build_plan
from tests.plugins.students.clinkd.tiny import SIZES, SMALL, answer_logits, make, picture, sample
from tests.toy_project import make_project, open_project

RECIPE = Recipe.model_validate(
    {
        "name": "speaking",
        "summary": "ClinKD's eq. 16",
        "losses": [{"name": "answer-ce"}, {"name": "token-kd"}],
        "trust": {"policy": "all"},
        "optimizer": {"lr": 0.01, "batch_size": 4, "steps": 12},
    }
)
TEXTS = ("(12,30),(70,88)", "the lung", "nodule", "box 7", "(1,2)", "Where is", "a", "the nodule")


class AnswerLoss(nn.Module):
    """Cross entropy of all answers' tokens, and the distance to a teacher's states; over the whole batch."""

    def forward(self, batch: LossInput) -> Tensor:
        ids, hidden = batch.student["answer_ids"], batch.student["answer_hidden"]
        logits = hidden @ batch.student["output_embedding"].T
        total = F.cross_entropy(logits.flatten(0, 1), ids.flatten(), ignore_index=-100)
        (view,) = batch.teachers
        rows = (hidden - view.target["states"]).pow(2).mean((1, 2))
        return total + (rows * view.weight).sum() / view.weight.sum()


def make_task() -> DistillTask:
    student = make(rope="mcg-rope", vision_rope="rope-mixed", freeze_vision=False).train()
    return DistillTask(student, {"teacher": TeacherProjection()}, [Term("answers", 1.0, AnswerLoss())])


def make_batch(task: DistillTask) -> dict[str, Any]:
    student: Any = task.student
    rows = [student.prepare(picture(28 * (1 + n % 3), 56, n), sample(text)) for n, text in enumerate(TEXTS)]
    generator = torch.Generator().manual_seed(0)
    return {
        "inputs": {name: torch.stack([row[name] for row in rows]) for name in rows[0]},
        "targets": {"teacher": {"states": torch.randn(8, 20, 32, generator=generator)}},
        "weights": {"teacher": torch.rand(8, generator=generator)},
        "domain": torch.zeros(8, dtype=torch.int64),
    }


def test_rows_can_be_gathered() -> None:
    """Their shapes do not depend on the batch, which differs between processes."""
    task = make_task()
    inputs = make_batch(task)["inputs"]
    outputs = [task.student({name: x[rows] for name, x in inputs.items()}) for rows in (slice(1), slice(1, 8))]
    for name in ("answer_hidden", "answer_ids"):
        assert outputs[0][name].shape[1:] == outputs[1][name].shape[1:]
    assert outputs[0]["output_embedding"] is outputs[1]["output_embedding"]


class Speaker:
    """A ``contracts.SignalSource``: a student's top-k log-probabilities at each token of the samples' answers."""

    K = 8
    signals = (
        SignalSpec("tokens", (40,), "int32"),
        SignalSpec("topk_ids", (40, K), "int32"),
        SignalSpec("topk", (40, K)),
        SignalSpec("tail", (40, 3)),
    )

    def __init__(self, student: ClinkdStudent) -> None:
        self.student = student

    def identity(self) -> Mapping[str, str]:
        return self.student.identity()

    def prepare(self, image: Image, sample: Sample) -> Mapping[str, Tensor]:
        return self.student.prepare(image, sample)

    def compute(self, items: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        inputs = {name: torch.stack([item[name] for item in items]) for name in items[0]}
        log_p = answer_logits(self.student, inputs).log_softmax(-1)
        top = log_p.topk(self.K, dim=-1)
        rest = log_p.scatter(-1, top.indices, -torch.inf)
        tail = torch.stack([(rest / temperature).logsumexp(-1) for temperature in (0.5, 1, 2)], dim=-1)
        return {"tokens": inputs["answer_ids"], "topk_ids": top.indices, "topk": top.values, "tail": tail}


def survey_of(project: Project, teacher: Speaker) -> TeachingInventory:
    table, one = load_index(project), np.ones((1, 1))
    store = FeatureStore(project.features)
    extract(store, [OpenTeacher("t", teacher, teacher, "f" * 64, {"weights": "0"})], table)
    trust = TrustTable(("t",), table.domains, one, one, one, np.array([6]), np.array([0.0]))
    return TeachingInventory(table, {"t": store.column("t")}, trust, one)


def test_the_engine_trains_it_and_continues_it(tmp_path: Path) -> None:
    """A project's captions, a teacher's stored top-k: the same plan, store, loop and checkpoints as for MMKD."""
    make_project(tmp_path / "project", teachers={}, domains=("ct",), train=4, held_out=2)
    config: dict[str, Any] = {"sizes": SIZES, **SMALL, "max_tokens": 128, "max_answer": 40}
    registry = tmp_path / "project" / "registry.yaml"
    family = json.dumps({"family": "clinkd", "config": {**config, "rope": "clinkd-repo"}})
    text = registry.read_text(encoding="utf-8").replace("{family: toy, config: {width: 12}}", family)
    registry.write_text(text, encoding="utf-8")
    project = open_project(tmp_path / "project")
    inventory = survey_of(project, Speaker(make(**config, seed=3)))
    plan = make_plan(RECIPE, inventory, None, {}, seed=0)
    logs = []
    for _ in range(2):
        made = build_plan(project, plan, inventory, None, Silent())
        accelerator = Accelerator(cpu=True)
        schedule = BatchSampler(plan.pools, batch_size=plan.batch_size, steps=plan.settings.steps, seed=0)
        progress = train(
            made.task,
            made.dataloader(plan, schedule, accelerator),
            replace(plan.settings, checkpoint_seconds=0),
            accelerator=accelerator,
            checkpoints=Checkpoints(tmp_path / "run"),
            reporter=Silent(),
        )
        made.inputs.close()
        logs.append(progress.log)
    for name in ("answer-ce", "token-kd"):
        assert logs[0][-1][name] < 0.8 * logs[0][0][name], name
    assert logs[1] == logs[0], "the second run was at its end already: everything came from the checkpoint"


def test_it_learns_its_answers() -> None:
    torch.manual_seed(0)
    task = make_task()
    before = copy.deepcopy(task.student.state_dict())
    batch, optimizer = make_batch(task), torch.optim.AdamW(task.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = task(**batch)["loss"]
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]
    moved = {name for name, x in task.student.state_dict().items() if not torch.equal(x, before[name])}
    assert {name for name, p in task.student.named_parameters() if p.requires_grad} <= moved
