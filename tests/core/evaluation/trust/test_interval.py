"""Wilson's interval against scipy and against its own definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from kdkit.core.evaluation.trust.interval import wilson


@given(st.integers(1, 500), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_it_is_scipys(count: int, share: float, level: float) -> None:
    correct = round(share * count)
    expected = binomtest(correct, count).proportion_ci(level, method="wilson")
    lower, upper = wilson(np.array([correct]), np.array([count]), level)
    assert (lower[0], upper[0]) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= lower[0] <= correct / count <= upper[0] <= 1


def test_nothing_counted_is_nan() -> None:
    assert np.isnan(wilson(np.zeros((2, 1)), np.zeros((2, 1)))).all()


def test_all_right_is_not_certain() -> None:
    lower, upper = wilson(np.array([10]), np.array([10]))
    assert lower[0] == pytest.approx(0.7225, abs=1e-4)
    assert upper[0] == 1.0
