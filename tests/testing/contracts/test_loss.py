"""The contract of losses finds every mistake that is made here on purpose, and none in a loss that is right."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdkit.core.contracts import Loss, LossInput
from kdkit.testing import LossContract
from tests.testing.harness import failed, found_by, skipped

HERE = f"{__name__}:"


class Distance(nn.Module):
    """Right: the squared distance, mean over the rows that have weight."""

    def forward(self, batch: LossInput) -> Tensor:
        total = batch.student["logit_scale"] * 0
        for view in batch.teachers:
            for signal, student in view.student.items():
                rows = self.rows(student, view.target[signal])
                total = total + self.mean(rows, view.weight)
        return total

    def rows(self, student: Tensor, target: Tensor) -> Tensor:
        return (student - target).square().sum(-1)

    def mean(self, rows: Tensor, weight: Tensor) -> Tensor:
        return (weight * rows).sum() / weight.sum().clamp_min(1e-30)


class Vector(Distance):
    def forward(self, batch: LossInput) -> Tensor:
        return super().forward(batch)[None]


class Double(Distance):
    def forward(self, batch: LossInput) -> Tensor:
        return super().forward(batch).double()


class Undefined(Distance):
    def rows(self, student: Tensor, target: Tensor) -> Tensor:
        return super().rows(student, target).log().sqrt()


class Drawn(Distance):
    """Not from torch's generator, so no seed makes it the same."""

    def forward(self, batch: LossInput) -> Tensor:
        return super().forward(batch) * random.random()


class Detached(Distance):
    def rows(self, student: Tensor, target: Tensor) -> Tensor:
        return super().rows(student.detach(), target)


class IdleParameter(Distance):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))


class InPlace(Distance):
    def rows(self, student: Tensor, target: Tensor) -> Tensor:
        return super().rows(student, target.mul_(0.5))


class Unweighted(Distance):
    def mean(self, rows: Tensor, weight: Tensor) -> Tensor:
        return rows.mean() * (weight.sum() > 0)


class Neighbors(Distance):
    """Weight 0 takes a row out of the sum, but not out of what the others are compared with."""

    def rows(self, student: Tensor, target: Tensor) -> Tensor:
        return super().rows(student - student.mean(0), target)


class ByZero(Distance):
    def mean(self, rows: Tensor, weight: Tensor) -> Tensor:
        return (weight * rows).sum() / weight.sum()


class NoGraph(Distance):
    def forward(self, batch: LossInput) -> Tensor:
        value = super().forward(batch)
        return value if value.item() else torch.zeros(())


class Greedy(nn.Module):
    """Compares every signal of the batch, declared or not."""

    def forward(self, batch: LossInput) -> Tensor:
        total = batch.student["logit_scale"] * 0
        for view in batch.teachers:
            for signal, target in view.target.items():
                total = total + (view.weight * (view.student[signal] - target).square().sum(-1)).sum()
        return total


class NeedsBoth(nn.Module):
    """Takes it for granted that every teacher gives image and text."""

    def forward(self, batch: LossInput) -> Tensor:
        total = batch.student["logit_scale"] * 0
        for view in batch.teachers:
            apart = view.student["image"] - view.target["image"] - view.target["text"]
            total = total + (view.weight * apart.square().sum(-1)).sum()
        return total


class HalfGradient(Distance):
    def rows(self, student: Tensor, target: Tensor) -> Tensor:
        return ((student - target) * (student - target).detach()).sum(-1)


class HiddenState(Distance):
    """Its factor is drawn when it is made, and is no part of its state."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = random.random()

    def rows(self, student: Tensor, target: Tensor) -> Tensor:
        return self.factor * super().rows(student, target)


class Share(Distance):
    """Right: the same, of one process's samples."""

    def forward(self, batch: LossInput) -> Tensor:
        self.total = batch.total
        return super().forward(batch)

    def mean(self, rows: Tensor, weight: Tensor) -> Tensor:
        return (weight * rows).sum() / self.total(weight.sum()).clamp_min(1e-30)


class OwnMean(Distance):
    """The mean over one process's samples; that of the batch is not the sum of such."""


class Hasty(Share):
    """Does not ask where it thinks that it need not."""

    def mean(self, rows: Tensor, weight: Tensor) -> Tensor:
        return super().mean(rows, weight) if len(rows) > 3 else (weight * rows).sum() * 0


class OwnRows(Distance):
    """Right: the same, of the rows that one process computes; it has the weights of all."""

    def forward(self, batch: LossInput) -> Tensor:
        total = batch.student["logit_scale"] * 0
        for view in batch.teachers:
            for signal, student in view.student.items():
                rows = self.rows(student, view.target[signal][batch.rows])
                total = total + (view.weight[batch.rows] * rows).sum() / self.divisor(view.weight)
        return total

    def divisor(self, weight: Tensor) -> Tensor:
        return weight.sum().clamp_min(1e-30)


class OwnDivisor(OwnRows):
    """Divides by what its rows have."""

    def forward(self, batch: LossInput) -> Tensor:
        self.own = batch.rows
        return super().forward(batch)

    def divisor(self, weight: Tensor) -> Tensor:
        return super().divisor(weight[self.own])


def unweighted(losses: Sequence[Loss], batches: Sequence[LossInput], _: Sequence[float]) -> tuple[Tensor, list[Tensor]]:
    """Forgets the weights."""
    values = [loss(batch) for loss, batch in zip(losses, batches, strict=True)]
    return torch.stack(values).sum(), [value.detach() for value in values]


MISTAKES = [
    (Vector, "test_scalar", "expected a scalar of shape (), got (1,)"),
    (Double, "test_scalar", "expected float32 from float32 rows, got torch.float64"),
    (Undefined, "test_scalar", "expected a finite value, got nan"),
    (Drawn, "test_scalar", "value, computed again: expected the same"),
    (Detached, "test_gradient_reaches_student", "expected a gradient at the student, got none or 0"),
    (IdleParameter, "test_gradient_reaches_student", "no gradient at the parameter 'scale'"),
    (InPlace, "test_inputs_unchanged", "was changed in place"),
    (Unweighted, "test_rows_without_weight", "value after rows of weight 0 changed"),
    (Neighbors, "test_rows_without_weight", "value after rows of weight 0 changed"),
    (ByZero, "test_no_weight_at_all", "all weights 0: expected 0, got nan"),
    (NoGraph, "test_no_weight_at_all", "expected a graph, got none"),
    (Greedy, "test_other_signals", "KeyError: 'of another loss'"),
    (NeedsBoth, "test_other_signals", "KeyError: 'image'"),
    (Distance, "test_other_tokens", "expected 'tokens' among its signals"),
    (Neighbors, "test_one_sample", "least_batch=2"),
    (OwnMean, "test_shares_add_up", "sum of two shares' values: expected"),
    (Hasty, "test_shares_add_up", "than the other: processes would deadlock"),
    (OwnDivisor, "test_shares_add_up", "sum of two shares' values: expected"),
    (Share, "test_together", "total of two losses in one call: expected"),
    (HalfGradient, "test_gradcheck", "gradcheck failed"),
    (HiddenState, "test_state_round_trip", "value after a state round trip"),
]


def test_a_loss_that_is_right_passes() -> None:
    checks = found_by(LossContract, HERE + "Distance")
    assert failed(checks) == {}
    assert skipped(checks) == set()
    for loss, share in (("Share", "per_sample"), ("OwnRows", "by_rows")):
        checks = found_by(LossContract, HERE + loss, spec={share: True})
        assert failed(checks) == {}
        assert skipped(checks) == set()


@pytest.mark.parametrize(("loss", "check", "message"), MISTAKES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mistake_is_found(loss: type[Any], check: str, message: str) -> None:
    share = "by_rows" if loss is OwnDivisor else "per_sample"
    spec: dict[str, Any] = {
        share: check in ("test_shares_add_up", "test_together"),
        "same_tokens": check == "test_other_tokens",
    }
    if check == "test_together":
        spec["together"] = f"{HERE}unweighted"
    found = failed(found_by(LossContract, HERE + loss.__name__, spec=spec))
    assert message in found.get(check, f"passed; failed: {found}")


def test_every_check_of_the_contract_has_a_mistake_that_it_finds() -> None:
    from kdkit.testing import checks

    assert {name for name, _ in checks(LossContract)} == {check for _, check, _ in MISTAKES}


def test_unknown_signals_need_a_batch_of_the_author() -> None:
    checks = found_by(LossContract, HERE + "Distance", spec={"signals": ("heat",)})
    assert {check.status for check in checks} == {"skipped"}
    assert all(name in checks[0].message for name in ("batch()", "LossContract"))


def test_a_loss_without_teachers_has_no_rows_of_theirs() -> None:
    checks = found_by(LossContract, HERE + "OwnScale", spec={"signals": ()})
    assert failed(checks) == {}
    assert skipped(checks) == {"test_rows_without_weight", "test_no_weight_at_all", "test_other_signals"}


class OwnScale(nn.Module):
    """Learns from the samples themselves."""

    def forward(self, batch: LossInput) -> Tensor:
        return (batch.student["image"] - batch.student["text"]).square().mean() * batch.student["logit_scale"]
