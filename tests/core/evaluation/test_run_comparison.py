"""Runs in pairs, with different numbers of seeds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as student_t

from kdkit.core.evaluation.run_comparison import accuracy_of, compare_runs, training_noise
from tests.core.evaluation.test_leave_one_out import evaluation, first
from tests.errors import raises_error


def test_noise_is_pooled_and_divided_by_the_seeds_of_each() -> None:
    found = training_noise([np.array([1.0, 3.0, 5.0]), np.array([0.0, 2.0]), np.array([7.0])])
    deviation = np.sqrt((8 + 2) / 3)
    wanted = [student_t.ppf(0.975, 3) * deviation / np.sqrt(seeds) for seeds in (3, 2, 1)]
    assert found == pytest.approx(wanted)


def test_only_pairs_count() -> None:
    baseline = [evaluation(ct=first(30)), evaluation(ct=first(20))]
    other = evaluation(ct=first(10))
    found = compare_runs({"a": [(baseline[1], other)], "b": [(one, one) for one in baseline]}, ["ct"])
    assert (found["a"].mean.before, found["a"].mean.after, found["a"].mean.points) == (0.5, 0.25, -25)
    assert found["b"].mean.points == 0
    assert accuracy_of(other, "ct") == 0.25
    assert found["a"].mean.text().startswith("-25.0 (")


def test_other_samples_are_refused() -> None:
    whole, other = evaluation(ct=first(3)), evaluation(ct=first(3))
    ((_, score),) = other.models[0].domains.items()
    model = replace(other.models[0], domains={"ct": replace(score, ids=score.ids[::-1])})
    with raises_error("KD-EVAL-380", mentions=("'ct'",)):
        compare_runs({"a": [(whole, replace(other, models=(model,)))]}, ["ct"])
