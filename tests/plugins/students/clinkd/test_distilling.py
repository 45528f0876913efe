"""The generating student in the engine: rows that can be gathered, and it learns."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdkit.core.contracts import LossInput
from kdkit.core.distill.bridge import Bridge
from kdkit.core.distill.task import DistillTask, Term
from tests.plugins.students.clinkd.tiny import make, picture, sample

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
    return DistillTask(student, {"teacher": Bridge()}, [Term("answers", 1.0, AnswerLoss())])


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


def test_it_learns_its_answers() -> None:
    torch.manual_seed(0)
    task = make_task()
    before = copy.deepcopy(task.student.state_dict())
    batch, optimiser = make_batch(task), torch.optim.AdamW(task.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = task(**batch)["loss"]
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.6 * losses[0]
    moved = {name for name, x in task.student.state_dict().items() if not torch.equal(x, before[name])}
    assert {name for name, p in task.student.named_parameters() if p.requires_grad} <= moved
