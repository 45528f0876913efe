"""Ranks of retrieval, against a float64 matrix of all similarities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdkit.core.contracts import Sample
from kdkit.core.evaluation import retrieval
from kdkit.core.evaluation.retrieval import TIE, at_least_as_near, mutual_ranks, pair_captions, sample_ranks
from kdkit.core.evaluation.zero_shot import unit_rows
from tests.errors import raises_error

Array = np.ndarray[Any, Any]


def unit(rows: Array) -> Array:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def from_a_matrix(image: Array, text: Array, right: Array) -> tuple[Array, Array]:
    """The definition: all similarities in float64, and the wrong ones that are at least as near as the best right."""
    cosine = image.astype(np.float64) @ text.astype(np.float64).T
    correct = np.zeros(cosine.shape, dtype=bool)
    correct[right[:, 0], right[:, 1]] = True
    best = np.where(correct, cosine, -np.inf)
    wrong = np.where(correct, -np.inf, cosine)
    return (
        1 + (wrong > best.max(axis=1, keepdims=True) - TIE).sum(axis=1),
        1 + (wrong > best.max(axis=0) - TIE).sum(axis=0),
    )


def pairs_of(images: int, texts: int, more: int, rng: np.random.Generator) -> Array:
    """Each image and text in a pair, and ``more`` pairs: several captions an image, several images a caption."""
    n = np.arange(max(images, texts))
    extra = np.stack([rng.integers(0, images, more), rng.integers(0, texts, more)], axis=1)
    return np.unique(np.concatenate([np.stack([n % images, n % texts], axis=1), extra]), axis=0)


@pytest.mark.parametrize("noise", [0.3, 1.0, 100.0])  # hardly any, few and many nearer answers
@pytest.mark.parametrize(("images", "texts", "width"), [(3, 5, 2), (1100, 2100, 16), (993, 700, 300)])
def test_ranks_are_those_of_a_float64_matrix(images: int, texts: int, width: int, noise: float) -> None:
    rng = np.random.default_rng(0)
    right = pairs_of(images, texts, 40, rng)
    text = unit(rng.normal(size=(texts, width)))
    own = right[np.unique(right[:, 0], return_index=True)[1], 1]
    image = unit(text[own] + noise * unit(rng.normal(size=(images, width))))
    image[images // 2], text[texts // 2] = image[0], text[0]  # exact ties
    for found, expected in zip(mutual_ranks(image, text, right), from_a_matrix(image, text, right), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_differences_below_the_precision_of_float32_decide() -> None:
    """Two captions whose cosines with the image differ by 1e-9: float32 cannot tell them apart."""
    rng = np.random.default_rng(1)
    text = unit(rng.normal(size=(2000, 64)))
    image = text[:1].copy()
    text[1:] = text[0]
    text[np.arange(1, 2000), rng.integers(0, 64, 1999)] *= 1 + rng.choice([-1e-6, 1e-6], 1999).astype(np.float32)
    right = np.stack([np.minimum(np.arange(2000), 1), np.arange(2000)], axis=1)
    image = np.concatenate([image, text[5:6]])
    expected = from_a_matrix(image, text, right)
    assert 1 < expected[0][0] < 2000
    np.testing.assert_array_equal(mutual_ranks(image, text, right)[0], expected[0])


def test_a_model_that_says_the_same_of_all_comes_last() -> None:
    image = unit(np.ones((50, 4)))
    own = np.arange(50)
    for ranks in mutual_ranks(image, image, np.stack([own, own], axis=1)):
        assert set(ranks.tolist()) == {50}


def test_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    rng = np.random.default_rng(2)
    image, text = unit(rng.normal(size=(300, 8))), unit(rng.normal(size=(300, 8)))
    own = np.stack([np.arange(300)] * 2, axis=1)
    one = mutual_ranks(image, text, own)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(retrieval, "_PAIRS", 7)
    for found, expected in zip(mutual_ranks(image, text, own), one, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_samples_with_one_image_or_equal_captions_are_one_candidate() -> None:
    named = [("a.png", "A nodule."), ("a.png", "round"), ("b.png", "a  nodule"), ("c.png", "clear")]
    samples = [Sample(str(n), Path(image), text, "ct") for n, (image, text) in enumerate(named)]
    pairs = pair_captions(samples)
    assert [sample.id for sample in pairs.images] == ["0", "2", "3"]
    assert [sample.id for sample in pairs.texts] == ["0", "1", "3"]
    assert (pairs.image_of.tolist(), pairs.text_of.tolist()) == ([0, 0, 1, 2], [0, 1, 0, 2])
    image = unit(np.array([[1.0, 0], [0.9, 0.1], [0, 1]]))
    text = unit(np.array([[1.0, 0.05], [0.2, 1], [0, 1]]))
    to_text, to_image = sample_ranks(image, text, pairs.image_of, pairs.text_of)
    assert to_text.tolist() == [1, 1, 1, 1]  # 'a.png' finds one of its two captions, and 'b.png' the shared one
    assert to_image.tolist() == [1, 3, 1, 1]  # 'round' is nearest to 'c.png', then to 'b.png'


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_refused(value: float) -> None:
    """Otherwise one such image would make all others the first choice of their captions."""
    rows = np.eye(4, dtype=np.float32)
    broken = rows.copy()
    broken[2, 1] = value
    right = np.stack([np.arange(4)] * 2, axis=1)
    with raises_error("KD-EVAL-500", mentions=("1 of 4", "row 2")):
        mutual_ranks(broken, rows, right)
    with raises_error("KD-EVAL-500"):
        mutual_ranks(rows, broken, right)


def test_captions_at_least_as_near_are_those_of_a_float64_matrix() -> None:
    rng = np.random.default_rng(0)
    image, text = (unit_rows(rng.standard_normal((n, 16)), what="rows") for n in (40, 60))
    text[30:] = text[:30]  # ties
    right = text[rng.integers(0, 60, 40)]
    exact = image.astype(np.float64) @ text.T.astype(np.float64)
    own = (image.astype(np.float64) * right).sum(axis=1)
    np.testing.assert_array_equal(at_least_as_near(image, text, right), exact > own[:, None] - TIE)
