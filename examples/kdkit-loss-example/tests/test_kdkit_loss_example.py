"""The contract of losses, and what this one does."""

from __future__ import annotations

import pytest
import torch
from kdkit import KdkitError, LossInput, TeacherView
from kdkit.testing import LossContract, PluginContract
from torch import Tensor

from kdkit_loss_example.loss import Huber


class TestPlugin(PluginContract):
    name = "kdkit-loss-example"


class TestLoss(LossContract):
    name = "kdkit-loss-example:loss-example"


def batch(student: Tensor, target: Tensor) -> LossInput:
    view = TeacherView("teacher", torch.ones(len(student)), {"image": target}, {"image": student})
    return LossInput({"image": student}, (view,), torch.zeros(len(student), dtype=torch.int64))


def test_a_student_that_follows_it_becomes_its_teacher() -> None:
    torch.manual_seed(0)
    target, student = torch.randn(8, 4), torch.zeros(8, 4, requires_grad=True)
    loss, optimizer = Huber(delta=0.5), torch.optim.Adam([student], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        loss(batch(student, target)).backward()
        optimizer.step()
    assert torch.allclose(student, target, atol=1e-2)


def test_an_outlier_pulls_with_a_bounded_force() -> None:
    student = torch.zeros(2, 1, requires_grad=True)
    Huber(delta=1.0)(batch(student, torch.tensor([[2.0], [2000.0]]))).backward()
    assert student.grad is not None
    assert student.grad[0].item() == pytest.approx(student.grad[1].item())


def test_delta_is_checked() -> None:
    with pytest.raises(KdkitError) as caught:
        Huber(delta=0.0)
    assert caught.value.id == "EXAMPLE-001"
