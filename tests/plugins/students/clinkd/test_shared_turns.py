"""Turns of a conversation in one sequence against a sequence for each turn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdkit.core.contracts import Sample
from kdkit.plugins.students.clinkd.shared_turns import owners
from kdkit.plugins.students.clinkd.student import ClinkdStudent
from tests.plugins.students.clinkd.stock import create
from tests.plugins.students.clinkd.tiny import PICTURES, make, sample

SAID = ("<image>Where is the lung?", "left", "And the nodule?", "in the lung", "Box?", "(1,2)")
ROLES = ("user", "assistant") * 3
SHARED = ("gemma3", "internvl", "llava", "qwen3_vl")
"""Families of each kind of prompt whose tiny templates keep earlier turns as they are."""


def turns() -> list[Sample]:
    """Three turns of a conversation."""
    messages = [{"role": role, "content": text} for role, text in zip(ROLES, SAID, strict=True)]
    return [sample(SAID[end], messages=messages[:end]) for end in (1, 3, 5)]


def inputs_of(student: ClinkdStudent, chosen: list[Sample], pictures: list[Any] | None = None) -> dict[str, Tensor]:
    images = pictures or [PICTURES[0]] * len(chosen)
    rows = [student.prepare(image, one) for image, one in zip(images, chosen, strict=True)]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def gradients_of(student: ClinkdStudent, parts: list[dict[str, Tensor]]) -> tuple[Tensor, list[Tensor]]:
    """States of all answers of the parts, and the gradients of the sum over their entries, squared."""
    student.zero_grad()
    hidden = torch.cat([student(part)["answer_hidden"] for part in parts])
    torch.autograd.backward(hidden.double().square().sum())
    return hidden.detach(), [p.grad.clone() for p in student.parameters() if p.grad is not None]


def rows_seen(student: ClinkdStudent, inputs: dict[str, Tensor]) -> int:
    """Rows of the language tower in a forward pass."""
    seen: list[int] = []
    tower = getattr(student.base.model, student.family.language)

    def note(_: nn.Module, __: Any, given: dict[str, Any]) -> None:
        seen.append(len(given["inputs_embeds"]))

    hook = tower.register_forward_pre_hook(note, with_kwargs=True)
    student(inputs)
    hook.remove()
    (rows,) = seen
    return rows


@pytest.mark.parametrize("family", SHARED)
@pytest.mark.parametrize("packed", [False, True])
def test_one_sequence_has_the_losses_of_all_turns(family: str, packed: bool) -> None:
    student = create(family)
    student.base.double()
    first, second, third = turns()
    other = sample("no", "<image>Is it?")
    inputs = inputs_of(student, [second, other, first, third])
    assert owners(inputs) == [3, 1, 3, 3]
    assert rows_seen(student, inputs) == 2
    apart = gradients_of(student, [{name: x[n : n + 1] for name, x in inputs.items()} for n in range(4)])
    if packed:
        student.pack_samples(4096)
    hidden, gradients = gradients_of(student, [inputs])
    torch.testing.assert_close(hidden, apart[0], rtol=1e-6, atol=1e-6)
    for found, wanted in zip(gradients, apart[1], strict=True):
        assert float((found - wanted).abs().max()) <= 1e-6 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("rope", ["mrope", "mcg-rope", "rope-2d"])
def test_positions_of_every_variant_allow_it(rope: str) -> None:
    student = make(rope=rope)
    inputs = inputs_of(student, turns())
    assert owners(inputs) == [2, 2, 2]
    apart = gradients_of(student, [{name: x[n : n + 1] for name, x in inputs.items()} for n in range(3)])
    hidden, gradients = gradients_of(student, [inputs])
    torch.testing.assert_close(hidden, apart[0], rtol=1e-4, atol=1e-5)
    for found, wanted in zip(gradients, apart[1], strict=True):
        assert float((found - wanted).abs().max()) <= 1e-5 * max(1.0, float(wanted.abs().max()))


def test_turns_that_differ_have_their_own_sequences() -> None:
    """Another image, another earlier answer, a system message."""
    student = make()
    first, second, third = turns()
    assert owners(inputs_of(student, [first, third], [PICTURES[0], PICTURES[1]])) == [0, 1]
    said = [{**one} for one in third.extra["messages"]]
    said[1]["content"] = "right"
    assert owners(inputs_of(student, [first, second, sample("x", messages=said)])) == [1, 1, 2]
    system = [{"role": "system", "content": "Be brief."}, *third.extra["messages"]]
    assert owners(inputs_of(student, [second, sample("x", messages=system)])) == [0, 1]
