"""ContinualMetrics-learning figures against matrices worked by hand and the papers' double sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdkit.core.evaluation.continual import compute_continual_metrics


def test_three_domains_worked_by_hand() -> None:
    matrix = np.array([[0.9, 0.3, 0.2], [0.8, 0.7, 0.4], [0.6, 0.75, 0.95]])
    found = compute_continual_metrics(matrix, learned=[0, 1, 2])
    assert found.average == pytest.approx(matrix.mean())
    assert found.last == pytest.approx((0.6 + 0.75 + 0.95) / 3)
    assert found.transfer == pytest.approx((0.3 + (0.2 + 0.4) / 2) / 2)
    assert found.backward_transfer == pytest.approx(((0.6 - 0.9) + (0.75 - 0.7)) / 2)
    assert found.forgetting == pytest.approx(((0.9 - 0.6) + (0.7 - 0.75)) / 2)


def test_an_increment_may_bring_several_domains_or_none() -> None:
    matrix = np.array([[0.9, 0.8, 0.2], [0.7, 0.8, 0.2], [0.8, 0.6, 0.3]])
    found = compute_continual_metrics(matrix, learned=[0, 0, 3])  # the third domain was never taught
    assert found.transfer == pytest.approx((0.2 + 0.2 + 0.3) / 3)
    assert found.backward_transfer == pytest.approx((-0.1 - 0.2) / 2)
    assert found.forgetting == pytest.approx((0.1 + 0.2) / 2)


def test_unmeasured_scores_are_ignored() -> None:
    matrix = np.array([[0.9, np.nan], [0.8, 0.7]])
    found = compute_continual_metrics(matrix, learned=[0, 1])
    assert found.last == pytest.approx(0.75)
    assert np.isnan(found.transfer)
    assert found.average == pytest.approx((0.85 + 0.7) / 2)


def test_forgetting_of_a_single_version_is_undefined() -> None:
    found = compute_continual_metrics(np.array([[0.5, 0.7]]), learned=[0, 0])
    assert (found.average, found.last) == pytest.approx((0.6, 0.6))
    assert np.isnan([found.transfer, found.backward_transfer, found.forgetting]).all()


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match="fit"):
        compute_continual_metrics(np.zeros((2, 3)), learned=[0, 1])


@given(st.integers(0, 1000), st.integers(2, 6))
def test_the_papers_double_sums(seed: int, tasks: int) -> None:
    r = np.random.default_rng(seed).random((tasks, tasks))
    found = compute_continual_metrics(r, learned=range(tasks))
    transfer = np.mean([np.mean([r[i, j] for i in range(j)]) for j in range(1, tasks)])
    bwt = sum(r[-1, i] - r[i, i] for i in range(tasks - 1)) / (tasks - 1)
    forgetting = sum(max(r[i, j] for i in range(tasks - 1)) - r[-1, j] for j in range(tasks - 1)) / (tasks - 1)
    assert (found.transfer, found.backward_transfer, found.forgetting) == pytest.approx((transfer, bwt, forgetting))
    assert found.forgetting >= -found.backward_transfer - 1e-12


@given(st.integers(0, 1000), st.integers(2, 5))
def test_a_student_that_never_changes_forgets_nothing(seed: int, tasks: int) -> None:
    row = np.random.default_rng(seed).random(tasks)
    found = compute_continual_metrics(np.tile(row, (tasks, 1)), learned=range(tasks))
    assert (found.backward_transfer, found.forgetting) == pytest.approx((0, 0), abs=1e-12)
    assert found.average == pytest.approx(found.last)
