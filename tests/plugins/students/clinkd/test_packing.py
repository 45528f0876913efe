"""Samples in one row against the same samples in rows of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdkit.core.contracts import LossInput
from kdkit.core.distill.model.micro_batches import MicroBatches
from kdkit.plugins.losses.tokens.losses import AnswerCrossEntropy
from kdkit.plugins.students.clinkd.packing import Packed, pack_rows
from kdkit.plugins.students.clinkd.student import ClinkdStudent
from tests.errors import raises_error
from tests.plugins.students.clinkd.stock import DISTINCT, create, images_of
from tests.plugins.students.clinkd.stock import samples as samples_of_families
from tests.plugins.students.clinkd.tiny import make, samples, stacked

PACKED = tuple(family for family in DISTINCT if family != "mllama")


def inputs_of(student: ClinkdStudent) -> dict[str, Tensor]:
    rows = [student.prepare(images_of(number, one)[0], one) for number, one in enumerate(samples_of_families())]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def outputs_and_gradients(student: ClinkdStudent, inputs: dict[str, Tensor]) -> list[Tensor]:
    """States of the answers, and the gradient of every weight that has one."""
    student.zero_grad()
    hidden = student(inputs)["answer_hidden"]
    torch.autograd.backward(hidden.square().sum())
    return [hidden.detach(), *(p.grad.clone() for p in student.parameters() if p.grad is not None)]


def assert_equal(found: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert float((one - other).abs().max()) <= tolerance * max(1.0, float(other.abs().max()))


@pytest.mark.parametrize("family", PACKED)
def test_packed_is_separate(family: str) -> None:
    """One and two images, a conversation, different lengths: states and all gradients, in float64."""
    student = create(family)
    student.base.double()
    inputs = inputs_of(student)
    separate = outputs_and_gradients(student, inputs)
    for tokens in (32, 100, 4096):  # a row each, two in a row, all in one
        student.pack_samples(tokens)
        assert_equal(outputs_and_gradients(student, inputs), separate, 1e-6)


def test_a_family_that_cannot_be_packed() -> None:
    student = create("mllama")
    with raises_error("KD-STUD-550", mentions=("mllama", "cross attention")):
        student.pack_samples(512)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("family", "rope"),
    [
        ("qwen2_vl", "mrope"),
        ("qwen2_vl", {"name": "mcg-rope", "options": {"alpha": 1.5}}),
        ("qwen2_vl", "rope-1d"),
        ("qwen2_5_vl", "mrope"),
    ],
)
def test_packed_is_separate_with_every_kind_of_positions(
    family: str, rope: Any, attention: str, tmp_path: Path
) -> None:
    """Three rows of position ids, broken numbers among them; float32, beside micro-batches."""
    student = make(family, rope=rope, attn_implementation=attention)
    inputs = stacked(student, samples(tmp_path))
    separate = outputs_and_gradients(student, inputs)
    student.pack_samples(4096)
    assert_equal(outputs_and_gradients(student, inputs), separate, 1e-5)
    student.zero_grad()
    hidden = MicroBatches(2).forward(student, inputs)["answer_hidden"]
    torch.autograd.backward(hidden.square().sum())
    gradients = [p.grad for p in student.parameters() if p.grad is not None]
    assert_equal([hidden.detach(), *gradients], separate, 1e-5)


def test_losses_of_parts_are_those_of_the_batch(tmp_path: Path) -> None:
    """Answers of different lengths in micro-batches of one: a mean over all tokens, not a mean of means."""
    student = make()
    student.base.double()
    inputs = stacked(student, samples(tmp_path))
    assert len(set((inputs["answer_ids"] >= 0).sum(1).tolist())) == 3
    found = []
    for size in (None, 1):
        student.zero_grad()
        outputs = MicroBatches(size).forward(student, inputs)
        loss = AnswerCrossEntropy()(LossInput(outputs, (), torch.zeros(3, dtype=torch.long)))
        torch.autograd.backward(loss)
        found.append([loss.detach(), *(p.grad.clone() for p in student.parameters() if p.grad is not None)])
    assert_equal(found[1], found[0], 1e-6)


def test_a_tower_that_mixes_samples_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.masking_utils.find_packed_sequence_indices", lambda _: None)
    with raises_error("KD-STUD-550", mentions=("sdpa", "differ")):
        make().pack_samples(512)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 60))
def test_rows_hold_every_sample_once_and_no_more_than_they_may(lengths: list[int], tokens: int) -> None:
    rows = pack_rows(lengths, tokens)
    assert sorted(one for row in rows for one in row) == list(range(len(lengths)))
    assert all(len(row) == 1 or sum(lengths[one] for one in row) <= tokens for row in rows)
    packed = Packed.of(lengths, 40, rows, torch.device("cpu"))
    x = torch.arange(len(lengths) * 40.0).reshape(len(lengths), 40, 1)
    known = torch.arange(40) < torch.tensor(lengths)[:, None]
    assert torch.equal(packed.unpack(packed.pack(x))[known], x[known])
    assert int((packed.sample >= 0).sum()) == sum(lengths)


def test_blocks_of_masks() -> None:
    """Two samples of 2 and 1 tokens in a row of 4: their own masks, nothing between them, filling sees itself."""
    masks = torch.tensor([[[True, True], [True, True]], [[True, False], [False, False]]])[:, None]
    packed = Packed.of([2, 1], 2, [[0, 1]], torch.device("cpu"))
    sample, place = torch.tensor([[0, 0, 1, -1]]), torch.tensor([[0, 1, 0, 0]])
    assert torch.equal(packed.sample, sample[:, :3])
    packed = replace(packed, sample=sample, place=place)
    expected = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]).bool()
    assert torch.equal(packed.blocks(masks)[0, 0], expected)
    added = torch.zeros(masks.shape).masked_fill(~masks, torch.finfo(torch.float32).min)
    assert torch.equal(packed.blocks(added)[0, 0] == 0, expected)
