"""The contract of trust policies finds what is wrong on purpose here."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from kdkit.core.contracts import TrustTable
from kdkit.testing import TrustPolicyContract, checks
from tests.testing.harness import failed, found_by

HERE = f"{__name__}:"
Array = np.ndarray[Any, Any]


class Measured:
    """Correct: weights are the measured scores."""

    def __call__(self, table: TrustTable) -> Array:
        return np.asarray(np.nan_to_num(table.accuracy))


class ByTeacher(Measured):
    def __call__(self, table: TrustTable) -> Array:
        return np.asarray(super().__call__(table).mean(axis=1))


class NoTeachers(Measured):
    """The usual mistake of a reduction: it needs at least one row."""

    def __call__(self, table: TrustTable) -> Array:
        best = np.nan_to_num(table.accuracy).max(axis=0)
        return np.asarray(super().__call__(table) / np.maximum(best, 1.0))


class PassesNan(Measured):
    def __call__(self, table: TrustTable) -> Array:
        return table.accuracy


class Percent(Measured):
    def __call__(self, table: TrustTable) -> Array:
        return 100 * super().__call__(table)


class Generous(Measured):
    def __call__(self, table: TrustTable) -> Array:
        return np.ones_like(table.accuracy)


class FirstWins(Measured):
    """A tie goes to the first teacher."""

    def __call__(self, table: TrustTable) -> Array:
        weights = np.zeros_like(table.accuracy)
        if len(weights):
            scores = np.nan_to_num(table.accuracy, nan=-1.0)
            best = scores.argmax(axis=0)
            weights[best, range(len(best))] = scores.max(axis=0) > 0
        return weights


class InPlace(Measured):
    def __call__(self, table: TrustTable) -> Array:
        return np.asarray(np.nan_to_num(table.accuracy, copy=False))


class Drawn(Measured):
    def __call__(self, table: TrustTable) -> Array:
        return super().__call__(table) * random.random()


MISTAKES = [
    (ByTeacher, "test_shape", "expected (teachers, domains) = (5, 4), got (5,)"),
    (NoTeachers, "test_shape", "zero-size array"),
    (PassesNan, "test_range", "expected finite weights"),
    (Percent, "test_range", "expected weights in [0, 1], got 0 to 100"),
    (Generous, "test_unmeasured", "expected weight 0 where the accuracy is NaN"),
    (FirstWins, "test_order_does_not_matter", "Not equal to tolerance"),
    (InPlace, "test_deterministic", "the policy changed the table"),
    (Drawn, "test_deterministic", "two calls on the same table gave different weights"),
]


def test_a_policy_that_is_right_passes() -> None:
    assert failed(found_by(TrustPolicyContract, HERE + "Measured")) == {}


@pytest.mark.parametrize(("policy", "check", "message"), MISTAKES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mistake_is_found(policy: type[Any], check: str, message: str) -> None:
    found = failed(found_by(TrustPolicyContract, HERE + policy.__name__))
    assert message in found.get(check, f"passed; failed: {found}")


def test_a_policy_may_let_the_unmeasured_teach_when_it_says_so() -> None:
    assert failed(found_by(TrustPolicyContract, HERE + "Generous", unmeasured=True)) == {}


def test_every_check_finds_a_mistake() -> None:
    assert {name for name, _ in checks(TrustPolicyContract)} == {check for _, check, _ in MISTAKES}
