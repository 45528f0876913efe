"""Prompt ensembles, probabilities and log-odds against plain arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdkit.core.evaluation.zero_shot import class_embeddings, class_log_odds, class_probabilities, unit_rows
from tests.errors import raises_error


def units(seed: int, n: int, width: int = 8) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return unit_rows(np.random.default_rng(seed).normal(size=(n, width)), what="rows")


def test_a_class_is_the_unit_mean_of_its_unit_prompts() -> None:
    vectors = {"a": [3.0, 0.0], "b": [0.0, 5.0], "c": [0.0, -1.0]}
    asked: list[list[str]] = []

    def encode(texts: object) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        asked.append(list(texts))  # type: ignore[call-overload]
        return np.array([vectors[text] for text in asked[-1]])

    found = class_embeddings({"x": ["a", "b"], "y": ["c", "c"]}, encode)
    np.testing.assert_allclose(found, [[0.5**0.5, 0.5**0.5], [0, -1]], atol=1e-7)
    assert asked == [["a", "b", "c"]]  # each text once, all at one time


def test_prompts_that_cancel_are_refused() -> None:
    with raises_error("KD-EVAL-013"):
        class_embeddings({"x": ["a", "b"]}, lambda _: np.array([[1.0, 0.0], [-1.0, 0.0]]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_rows_without_a_direction_are_refused_and_counted(bad: float) -> None:
    rows = np.ones((4, 3))
    rows[2] = bad
    with raises_error("KD-EVAL-013", where="plip", mentions=("1", "4", "2")):
        unit_rows(rows, what="image features", where="plip")


def test_half_precision_rows_become_unit() -> None:
    rows = (np.random.default_rng(0).normal(size=(5, 16)) * 300).astype(np.float16)
    np.testing.assert_allclose(np.linalg.norm(unit_rows(rows, what="rows"), axis=1), 1, atol=1e-6)


@given(st.integers(0, 1000), st.integers(2, 6), st.sampled_from([1.0, 20.0, 100.0]))
def test_log_odds_are_those_of_the_probabilities(seed: int, classes: int, scale: float) -> None:
    image, names = units(seed, 20), units(seed + 1, classes)
    p = class_probabilities(image, names, scale)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    odds = class_log_odds(image, names, scale)
    inside = (p > 1e-200) & (p < 0.999)
    np.testing.assert_allclose(odds[inside], np.log(p[inside] / (1 - p[inside])), atol=1e-9)
    assert (odds.argmax(axis=1) == p.argmax(axis=1)).all()


def test_log_odds_still_rank_where_probabilities_are_all_one() -> None:
    names = np.eye(2, dtype=np.float32)
    angles = np.linspace(0, 0.3, 5)
    image = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert (class_probabilities(image, names)[:, 0] == 1).all()
    assert (np.diff(class_log_odds(image, names)[:, 0]) < 0).all()
