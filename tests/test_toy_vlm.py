"""The generating miniature is right in itself: contracts, loss against an explicit sum, and it learns."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from kdkit.core.contracts import LossInput, Sample, SignalSource, TeacherView
from tests.tiny_models import pictures
from tests.toy_vlm import (
    PADDING,
    TOKENS,
    TOP,
    VOCABULARY,
    TopKAnswerLoss,
    ToyVlm,
    ToyVlmTeacher,
    load_toy_vlm,
    make_toy_vlm,
)

TEXTS = ["a ct scan with a nodule", "normal", "two words", "no finding at all"]
SAMPLES = [Sample(id=str(i), image=Path("x.png"), text=text, domain="ct") for i, text in enumerate(TEXTS)]


def batch_of(student: ToyVlm) -> dict[str, torch.Tensor]:
    rows = [student.prepare(image, sample) for image, sample in zip(pictures(), SAMPLES, strict=True)]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def signals_of(teacher: ToyVlmTeacher) -> dict[str, torch.Tensor]:
    return dict(teacher.compute([teacher.prepare(i, s) for i, s in zip(pictures(), SAMPLES, strict=True)]))


def loss_input(logits: torch.Tensor, signals: dict[str, torch.Tensor], weight: torch.Tensor) -> LossInput:
    view = TeacherView("t", weight, signals, {"logits": logits})
    return LossInput({"logits": logits}, (view,), torch.zeros(4, dtype=torch.int64))


def test_teacher_gives_rows_of_tokens_by_k() -> None:
    teacher = ToyVlmTeacher()
    assert isinstance(teacher, SignalSource)
    signals = signals_of(teacher)
    for spec in teacher.signals:
        assert signals[spec.name].shape == (4, *spec.shape)
    assert signals["answer"].shape == (4, TOKENS, TOP)
    assert (signals["answer"].diff(dim=-1) <= 0).all()
    assert [int((row[:, 0] != PADDING).sum()) for row in signals["answer_ids"]] == [5, 1, 2, 4]


def test_loss_is_the_explicit_sum_and_ignores_rows_without_weight() -> None:
    signals = signals_of(ToyVlmTeacher())
    logits = torch.randn(4, TOKENS, VOCABULARY, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight = torch.tensor([1.0, 0.5, 0.0, 2.0], dtype=torch.float64)
    expected = 0.0
    for row in range(4):
        places = [t for t in range(TOKENS) if signals["answer_ids"][row, t, 0] != PADDING]
        for t in places:
            scores = [math.exp(float(value)) for value in signals["answer"][row, t]]
            everything = math.log(sum(math.exp(float(value)) for value in logits[row, t]))
            for score, token in zip(scores, signals["answer_ids"][row, t].tolist(), strict=True):
                log_q = float(logits[row, t, token]) - everything
                expected -= float(weight[row]) / 3.5 * score / sum(scores) * log_q / len(places)
    got = TopKAnswerLoss()(loss_input(logits, signals, weight))
    assert abs(float(got) - expected) < 1e-6
    flat = {name: value.flatten(1).float() for name, value in signals.items()}
    flat["answer"][2], flat["answer_ids"][2] = 0, 0  # what a batch holds where the teacher has no signal
    assert float(TopKAnswerLoss()(loss_input(logits, flat, weight))) == float(got)
    nothing = TopKAnswerLoss()(loss_input(logits.requires_grad_(), signals, torch.zeros(4)))
    assert float(nothing.detach()) == 0
    assert nothing.requires_grad


def test_student_learns_the_teachers_answers_and_survives_saving(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student, teacher, loss = make_toy_vlm(hidden=32), ToyVlmTeacher(), TopKAnswerLoss()
    inputs, signals, weight = batch_of(student), signals_of(teacher), torch.ones(4)
    probabilities = signals["answer"].softmax(-1)
    places = (signals["answer_ids"][..., 0] != PADDING).float()
    entropy = -(probabilities * probabilities.log()).sum(-1) * places
    floor = float((entropy.sum(1) / places.sum(1)).mean())  # cross entropy is never below the teacher's entropy
    optimizer = torch.optim.Adam(student.parameters(), lr=0.03)
    values = []
    for _ in range(80):
        optimizer.zero_grad()
        value = loss(loss_input(student(inputs)["logits"], signals, weight))
        torch.autograd.backward(value)
        optimizer.step()
        values.append(float(value.detach()) - floor)
    assert 0 <= values[-1] < 0.1 * values[0]
    student.save(tmp_path)
    again = load_toy_vlm(tmp_path)
    assert torch.equal(again(inputs)["logits"], student.eval()(inputs)["logits"])


def test_a_place_sees_only_what_comes_before_it() -> None:
    student = make_toy_vlm().eval()
    inputs = batch_of(student)
    changed = {**inputs, "tokens": inputs["tokens"].clone()}
    changed["tokens"][:, 2] = 7
    before, after = student(inputs)["logits"], student(changed)["logits"]
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[:, 3], after[:, 3])
