"""The task: every parameter is trained and saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import LossInput
from kdkit.core.distill.loop.checkpoint_state import load_task_tensors, task_tensors
from kdkit.core.distill.loop.optimizer import make_optimizer
from kdkit.core.distill.loop.train import learning_rate
from kdkit.core.distill.model.projection import TeacherProjection, make_heads
from kdkit.core.distill.model.task import DistillTask, Term
from kdkit.core.distill.plan.types import PREVIOUS, TrainSettings
from kdkit.plugins.losses.tokens.losses import AnswerCrossEntropy, TokenDistillation
from tests.errors import raises_error
from tests.toys import LETTERS, SIDE, ToyEncoder

SETTINGS = TrainSettings(
    steps=10,
    lr=1e-2,
    weight_decay=0.1,
    betas=(0.9, 0.98),
    warmup=0.2,
    schedule="cosine",
    clip_norm=1.0,
    seed=0,
)


class Speaker(ToyEncoder):
    """It also gives what a generating student gives: token ids, and an output embedding that its inputs share."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.embedding = nn.Parameter(torch.randn(5, width))

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs, ids = super().forward(inputs), inputs["letters"].argmax(1) % 5
        outputs["image"] = outputs["image"] + self.embedding[ids]
        return {**outputs, "answer_ids": ids, "output_embedding": self.embedding}


class Contrast(nn.Module):
    """A loss over the whole batch (so that gathering matters), with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, batch: LossInput) -> Tensor:
        logits = batch.student["image"] @ batch.student["output_embedding"].T
        total = F.cross_entropy(logits, batch.student["answer_ids"])
        for view in batch.teachers:
            scores = self.log_scale.exp() * F.normalize(view.student["image"]) @ F.normalize(view.target["text"]).T
            rows = F.cross_entropy(scores, torch.arange(len(scores)), reduction="none")
            total = total + (rows * view.weight).sum() / view.weight.sum().clamp(min=1)
        return total


def make_task(pull: float = 0.0) -> DistillTask:
    torch.manual_seed(0)
    student = Speaker(width=6)
    projections = {
        "a.b": TeacherProjection(make_heads(student.outputs, {"image": 9, "text": 9}, shared_towers=True)),
        "values": TeacherProjection(make_heads(student.outputs, {"image": 4, "text": 4}, shared_towers=False)),
        "rigid": TeacherProjection(
            make_heads(student.outputs, {"image": 7, "text": 7}, shared_towers=False, orthogonal=True)
        ),
        PREVIOUS: TeacherProjection(),
    }
    terms = [Term("contrast", 1.0, Contrast()), Term("keep", 0.5, Contrast(), previous=True)]
    return DistillTask(student, projections, terms, pull=pull)


def make_batch(size: int = 8) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    weight = torch.rand(size, generator=generator)
    widths = {"a.b": 9, "values": 4, "rigid": 7, PREVIOUS: 6}
    return {
        "inputs": {
            "pixels": torch.rand(size, 3, SIDE, SIDE, generator=generator),
            "letters": torch.rand(size, LETTERS, generator=generator),
        },
        "targets": {
            name: {signal: torch.randn(size, width, generator=generator) for signal in ("image", "text")}
            for name, width in widths.items()
        },
        "weights": dict.fromkeys(widths, weight),
        "domain": torch.zeros(size, dtype=torch.int64),
    }


def gradients(task: DistillTask) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}


def test_every_trainable_parameter_is_in_the_optimizer_and_in_the_checkpoint() -> None:
    task = make_task()
    optimized = {id(p) for group in make_optimizer(task, SETTINGS).param_groups for p in group["params"]}
    assert {id(p) for p in task.parameters()} == optimized
    saved = task_tensors(task)
    other = make_task()
    for parameter in other.parameters():
        nn.init.constant_(parameter, 7.0)
    load_task_tensors(other, saved)
    for (name, mine), theirs in zip(task.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs), name


def test_shared_heads_are_one_and_separate_heads_two() -> None:
    heads = make_task().projections
    shared, separate = (cast(TeacherProjection, heads[key]).heads for key in ("@a:b", "@values"))
    assert shared is not None
    assert separate is not None
    assert shared["image"] is shared["text"]
    assert separate["image"] is not separate["text"]


def test_the_log_names_terms_and_the_total_is_their_weighted_sum() -> None:
    parts = make_task()(**make_batch())
    assert set(parts) == {"loss", "contrast", "@previous/keep"}
    torch.testing.assert_close(parts["loss"].detach(), parts["contrast"] + 0.5 * parts["@previous/keep"])


def test_pull_is_the_squared_distance_to_the_start() -> None:
    task = make_task(pull=0.25)
    with torch.no_grad():
        for parameter in task.student.parameters():
            parameter.add_(0.5)
    count = sum(p.numel() for p in task.student.parameters())
    assert task(**make_batch())["pull"].item() == pytest.approx(0.25 * count, rel=1e-5)


def test_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate(SETTINGS, step) for step in range(10)]
    assert rates[0] < rates[1] < rates[2] == pytest.approx(1e-2)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] > 0


def test_fitted_heads_are_the_ridge_regression() -> None:
    from sklearn.linear_model import Ridge

    from kdkit.core.distill.model.projection import RIDGE, fit_heads

    generator = torch.Generator().manual_seed(3)
    student = {s: torch.randn(50, 6, generator=generator) for s in ("image", "text")}
    target = {s: torch.randn(50, 9, generator=generator) for s in ("image", "text")}
    projection = TeacherProjection(make_heads({"image": 6, "text": 6}, {"image": 9, "text": 9}, shared_towers=True))
    fit_heads(projection, student, target)
    x = torch.cat([F.normalize(student[s], dim=-1) for s in ("image", "text")]).double().numpy()
    y = torch.cat([target[s] for s in ("image", "text")]).double().numpy()
    expected = Ridge(alpha=RIDGE * (x.T @ x).diagonal().mean(), fit_intercept=False).fit(x, y).coef_
    assert projection.heads is not None
    fitted = cast(nn.Linear, projection.heads["text"]).weight.detach()
    torch.testing.assert_close(fitted.double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


def test_a_loss_for_another_kind_of_student_is_told_what_this_one_gives() -> None:
    task = DistillTask(ToyEncoder(8), {}, [Term("answer-ce", 1.0, AnswerCrossEntropy())])
    with raises_error("KD-DIST-030", mentions=("'answer_ids'",)) as caught:
        task(**{**make_batch(), "targets": {}, "weights": {}})
    assert "image" in str(caught.value.why)


@pytest.mark.parametrize("value", [torch.ones(3), 0.5])
def test_a_loss_that_returns_no_scalar_is_named(value: object) -> None:
    class Odd(nn.Module):
        def forward(self, _: LossInput) -> object:
            return value

    task = DistillTask(ToyEncoder(4), {}, [Term("odd", 1.0, Odd())])
    inputs = {"pixels": torch.ones(2, 3, SIDE, SIDE), "letters": torch.ones(2, LETTERS)}
    with raises_error("KD-DIST-070", mentions=("'odd'",), code=ExitCode.PLUGIN) as caught:
        task(inputs=inputs, targets={}, weights={}, domain=torch.zeros(2, dtype=torch.int64))
    assert caught.value.where.endswith("Odd")


def test_losses_that_name_the_same_call_are_computed_by_it() -> None:
    """Values and gradients are those of each loss by itself; each value is logged."""
    from kdkit.plugins.losses.tokens.together import together

    class Answers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.states, self.embedding = nn.Parameter(torch.randn(2, 3, 6)), nn.Parameter(torch.randn(5, 6))

        def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
            states = self.states[inputs["row"]]
            return {"answer_hidden": states, "answer_ids": inputs["ids"], "output_embedding": self.embedding}

    calls: list[int] = []

    def counted(losses: Any, batches: Any, weights: Any) -> Any:
        calls.append(len(losses))
        return together(losses, batches, weights)

    torch.manual_seed(0)
    student = Answers()
    ids = torch.tensor([[1, 2, -100], [0, 3, 4]])
    chances = torch.full((2, 3, 2), -1.0)
    signals = {"tokens": ids, "topk_ids": ids[..., None].clamp(min=0) + torch.tensor([0, 1]), "topk": chances}
    targets = {"reader": {**signals, "tail": torch.full((2, 3, 3), -2.0)}}
    gradients, logs = [], []
    for joint in (None, counted):
        terms = [
            Term("answer-ce", 0.7, AnswerCrossEntropy(), per_sample=True, supervised=True, together=joint),
            Term("token-kd", 0.3, TokenDistillation(), per_sample=True, together=joint),
        ]
        task = DistillTask(student, {"reader": TeacherProjection()}, terms)
        given = {"row": torch.arange(2), "ids": ids}
        parts = task(given, targets, {"reader": torch.tensor([1.0, 0.5])}, torch.zeros(2, dtype=torch.int64))
        gradients.append(torch.autograd.grad(parts["loss"], list(student.parameters())))
        logs.append({name: float(value.detach()) for name, value in parts.items()})
    assert calls == [2]
    assert logs[1] == pytest.approx(logs[0], rel=1e-6)
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted)
