"""The built-in trust policies: worked examples, and what must hold of every one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kdkit.core.contracts import CAPTIONS, TrustPolicy, TrustTable
from kdkit.plugins.policies.policies import All, Evidence, Soft, Threshold, TopK
from tests.errors import raises_error

Array = np.ndarray[Any, Any]
NAN = float("nan")
POLICIES: dict[str, Callable[[], TrustPolicy]] = {
    "threshold": Threshold,
    "threshold on lower": lambda: Threshold(value=0.6, on="lower"),
    "threshold with fallback": lambda: Threshold(value=0.8, fallback="best"),
    "top-1": TopK,
    "top-2": lambda: TopK(k=2),
    "soft": Soft,
    "soft without floor": lambda: Soft(floor=0.0),
    "evidence": Evidence,
    "all": All,
}
every_policy = pytest.mark.parametrize("make", POLICIES.values(), ids=list(POLICIES))


def table(accuracy: Any, chance: float = 0.25, half_width: float = 0.05) -> TrustTable:
    values = np.asarray(accuracy, dtype=np.float64)
    return TrustTable(
        teachers=tuple(f"t{row}" for row in range(values.shape[0])),
        domains=tuple(f"d{column}" for column in range(values.shape[1])),
        accuracy=values,
        lower=np.clip(values - half_width, 0, 1),
        upper=np.clip(values + half_width, 0, 1),
        count=np.full(values.shape[1], 100),
        chance=np.full(values.shape[1], chance),
    )


scores = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=5),
    elements=st.one_of(st.just(NAN), st.integers(0, 20).map(lambda i: i / 20)),
)


@every_policy
@given(accuracy=scores)
def test_weights_are_in_range_and_never_on_what_was_not_measured(
    make: Callable[[], TrustPolicy], accuracy: Array
) -> None:
    weights = make()(table(accuracy))
    assert weights.shape == accuracy.shape
    assert ((weights >= 0) & (weights <= 1)).all()
    assert (weights[np.isnan(accuracy)] == 0).all()


@every_policy
@given(accuracy=scores, seed=st.integers(0, 100))
def test_the_order_of_teachers_and_domains_does_not_matter(
    make: Callable[[], TrustPolicy], accuracy: Array, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = (rng.permutation(size) for size in accuracy.shape)
    shuffled = make()(table(accuracy[rows][:, columns]))
    np.testing.assert_array_equal(shuffled, make()(table(accuracy))[rows][:, columns])


@every_policy
@given(accuracy=scores)
def test_a_better_teacher_of_a_domain_never_weighs_less(make: Callable[[], TrustPolicy], accuracy: Array) -> None:
    weights = make()(table(accuracy))
    for column in range(accuracy.shape[1]):
        known = ~np.isnan(accuracy[:, column])
        order = np.argsort(accuracy[known, column], kind="stable")
        assert (np.diff(weights[known, column][order]) >= 0).all()


@every_policy
@given(accuracy=scores, gain=st.integers(1, 10), place=st.integers(0, 24))
def test_improving_a_teacher_never_costs_it_weight(
    make: Callable[[], TrustPolicy], accuracy: Array, gain: int, place: int
) -> None:
    row, column = divmod(place % accuracy.size, accuracy.shape[1])
    better = accuracy.copy()
    better[row, column] = min(1.0, accuracy[row, column] + gain / 20)
    assert make()(table(better))[row, column] >= make()(table(accuracy))[row, column]


@pytest.mark.parametrize("make", [Soft, TopK, Evidence, lambda: Threshold(fallback="best")])
@given(accuracy=scores)
def test_a_domain_has_a_teacher_exactly_when_someone_beats_guessing(
    make: Callable[[], TrustPolicy], accuracy: Array
) -> None:
    someone = (np.nan_to_num(accuracy, nan=0.0) - 0.05 > 0.25).any(axis=0)
    np.testing.assert_array_equal((make()(table(accuracy)) > 0).any(axis=0), someone)


@pytest.mark.parametrize("make", [Soft, TopK, Evidence, lambda: TopK(k=3)])
@given(accuracy=scores)
def test_who_may_be_guessing_is_out(make: Callable[[], TrustPolicy], accuracy: Array) -> None:
    assert (make()(table(accuracy))[accuracy <= 0.3] == 0).all()


def test_threshold() -> None:
    found = table([[0.95, 0.90, 0.60], [0.91, 0.30, NAN]])
    assert Threshold()(found).tolist() == [[1, 1, 0], [1, 0, 0]]
    assert Threshold(on="lower")(found).tolist() == [[1, 0, 0], [0, 0, 0]]
    assert Threshold(fallback="best")(found).tolist() == [[1, 1, 1], [1, 0, 0]]
    assert Threshold(value=0.5)(found).tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize("count", range(10, 400, 10))
def test_nine_of_ten_is_enough_for_090(count: int) -> None:
    assert Threshold()(table([[9 * count / (10 * count)]])) == 1


def test_top_k() -> None:
    found = table([[0.9, 0.5, 0.2], [0.8, 0.5, 0.1], [0.7, 0.4, NAN]])
    assert TopK()(found).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]  # ties in; no teacher where all guess
    assert TopK(k=2)(found).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert TopK(k=9)(found).tolist() == [[1, 1, 0], [1, 1, 0], [1, 1, 0]]


def test_soft() -> None:
    found = table([[1.0, 0.7], [0.925, 0.25], [0.3, NAN]])  # skills 1, .9, .067 and .6, 0
    weights = Soft(sharpness=8, floor=0.2)(found)
    np.testing.assert_allclose(weights, [[1, 1], [np.exp(-0.8), 0], [0, 0]], atol=1e-12)
    assert Soft(sharpness=0)(found).tolist() == [[1, 1], [1, 0], [0, 0]]


def test_soft_where_guessing_is_always_right() -> None:
    assert Soft()(table([[1.0], [1.0]], chance=1.0)).tolist() == [[0], [0]]


def test_all() -> None:
    found = table([[0.1, NAN]])
    assert All()(found).tolist() == [[1, 0]]
    assert All(unmeasured=True)(found).tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("factory", "options", "mention"),
    [
        (Threshold, {"value": 90}, "value is 90"),
        (Threshold, {"on": "upper"}, "on is 'upper'"),
        (Threshold, {"fallback": "any"}, "fallback is 'any'"),
        (TopK, {"k": 0}, "k is 0"),
        (Soft, {"sharpness": -1}, "sharpness is -1"),
        (Soft, {"floor": 2}, "floor is 2"),
        (All, {"unmeasured": "yes"}, "unmeasured is 'yes'"),
    ],
)
def test_invalid_options_are_refused(factory: Callable[..., object], options: Any, mention: str) -> None:
    with raises_error("KD-POL-001", mentions=(mention,)):
        factory(**options)


def with_captions(accuracy: Any) -> TrustTable:
    """The last row is that of the captions."""
    found = table(accuracy)
    return replace(found, teachers=(*found.teachers[:-1], CAPTIONS))


def test_evidence_is_log_odds_relative_to_the_best() -> None:
    a, c = (90 + 1) / (100 + 4), (60 + 1) / (100 + 4)
    teacher, captions = math.log(a * 3 / (1 - a)), math.log(c * 3 / (1 - c))
    found = Evidence()(with_captions([[0.9], [0.6]]))
    np.testing.assert_allclose(found[:, 0], [1, captions / teacher], rtol=1e-12)


@given(accuracy=scores)
def test_the_best_source_of_every_domain_has_weight_one(accuracy: Array) -> None:
    found = Evidence()(with_captions(accuracy))
    np.testing.assert_allclose(np.maximum(found[:-1].sum(axis=0), found[-1]), 1)


def test_evidence_of_captions() -> None:
    beaten, unmeasured, nothing = Evidence()(with_captions([[0.9, 0.9, 0.26], [0.26, NAN, 0.26]])).T
    assert beaten.tolist() == [1, 0]
    assert unmeasured.tolist() == [1, 1]
    assert nothing.tolist() == [0, 1]
