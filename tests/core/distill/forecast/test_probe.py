"""What a probe counts: FLOPs and activations of layers whose figures are known in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdkit.core.distill.forecast.probe import count_student, measured_steps
from kdkit.core.distill.model.projection import TeacherProjection
from kdkit.core.distill.model.task import DistillTask, Term

WIDE, OUT, ROWS = 64, 32, 8


class Student(nn.Module):
    """A hidden layer without bias: 2 x rows x (WIDE x WIDE + WIDE x OUT) FLOPs forward."""

    outputs: Mapping[str, int] = {"image": OUT}

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDE, WIDE, bias=False), nn.Linear(WIDE, OUT, bias=False)
        self.frozen = nn.Linear(2, 2, bias=False).requires_grad_(False)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"image": self.last(self.first(inputs["pixels"]).tanh())}


class Gram(nn.Module):
    """(B, B) similarities: 2 x B x B x OUT FLOPs, twice again in the backward pass of the one side with a gradient."""

    def forward(self, batch: Any) -> Tensor:
        (teacher,) = batch.teachers
        return cast(Tensor, (teacher.student["image"] @ teacher.target["image"].T).square().mean())


def test_flops_and_activations_are_those_of_the_layers() -> None:
    task = DistillTask(Student(), {"radio": TeacherProjection()}, [Term("gram", 1.0, Gram())])
    batch = {
        "inputs": {"pixels": torch.randn(ROWS, WIDE)},
        "targets": {"radio": {"image": torch.randn(ROWS, OUT)}},
        "weights": {"radio": torch.ones(ROWS)},
        "domain": torch.zeros(ROWS, dtype=torch.int64),
    }
    found = count_student(task, batch, held=5)
    forward = 2 * (WIDE * WIDE + WIDE * OUT)
    backward = 2 * WIDE * WIDE + 2 * 2 * WIDE * OUT  # the first layer's input has no gradient
    assert found.flops == forward + backward
    assert found.loss_flops == 2 * (2 * ROWS * ROWS * OUT)
    assert found.activations == 4 * (WIDE + WIDE), "the input of the first layer, and tanh's result"
    assert (found.parameters, found.trained) == (WIDE * WIDE + WIDE * OUT + 4, WIDE * WIDE + WIDE * OUT)
    assert found.parameter_bytes - found.trained_bytes == 16
    assert found.output_bytes == 4 * OUT + 4 * OUT
    assert found.held == 5
    assert all(p.grad is None for p in task.parameters()), "the count leaves nothing behind"


def test_a_count_changes_no_random_number() -> None:
    class Noisy(Student):
        def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {"image": nn.functional.dropout(super().forward(inputs)["image"])}

    task = DistillTask(Noisy(), {"radio": TeacherProjection()}, [Term("gram", 1.0, Gram())])
    batch = {
        "inputs": {"pixels": torch.randn(ROWS, WIDE)},
        "targets": {"radio": {"image": torch.randn(ROWS, OUT)}},
        "weights": {"radio": torch.ones(ROWS)},
        "domain": torch.zeros(ROWS, dtype=torch.int64),
    }
    before = torch.get_rng_state()
    count_student(task, batch, held=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_first_step_is_not_counted() -> None:
    steps = [{"forward": 9.0, "data": 9.0}, {"forward": 1.0, "data": 0.5}, {"forward": 3.0}, {"forward": 2.0}]
    found = measured_steps(steps, torch.device("cpu"), processes=2)
    assert found.parts["forward"] == 2.0
    assert found.parts["optimizer"] == 0.0
    assert found.step_seconds == 2.0
    assert found.processes == 2
    assert found.memory > 0
