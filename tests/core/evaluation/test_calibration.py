"""Calibration errors and conformal sets against independent references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from kdkit.core.evaluation import calibration
from kdkit.core.evaluation.scoring import Bootstrap
from tests.errors import raises_error
from tests.plugins.tasks.views import sample

Array = np.ndarray[Any, Any]


def problem(n: int, classes: int = 4, seed: int = 0, scale: float = 2.0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    odds = np.exp(scale * (np.eye(classes)[labels] + rng.standard_normal((n, classes))))
    return odds / odds.sum(axis=1, keepdims=True), labels


def expected(correct: Array, confidence: Array, strategy: str, bins: int) -> float:
    """ECE from scikit-learn's bins."""
    true, predicted = calibration_curve(correct, confidence, n_bins=bins, strategy=strategy)
    edges = (
        np.linspace(0, 1, bins + 1)
        if strategy == "uniform"
        else np.percentile(confidence, np.linspace(0, 100, bins + 1))
    )
    sizes = np.histogram(confidence, edges)[0]
    return float((np.abs(true - predicted) * sizes[sizes > 0]).sum() / len(correct))


def test_errors_equal_those_of_scikit_learns_bins() -> None:
    probabilities, labels = problem(1500)
    confidence, correct = probabilities.max(axis=1), (probabilities.argmax(axis=1) == labels).astype(float)
    found = calibration.measure_calibration(
        probabilities, labels, [sample(f"s{n}") for n in range(1500)], Bootstrap(resamples=200)
    )
    assert found.ece[0] == pytest.approx(expected(correct, confidence, "uniform", 15), abs=1e-9)
    assert found.adaptive_ece[0] == pytest.approx(expected(correct, confidence, "quantile", 15), abs=2e-3)
    brier = np.mean(np.square(probabilities - np.eye(4)[labels]).sum(axis=1))
    assert found.brier[0] == pytest.approx(brier)
    assert all(low <= value <= high for value, low, high in (found.adaptive_ece, found.brier))
    assert sum(one.count for one in found.bins) == 1500
    gap = sum(one.count * abs(one.confidence - one.accuracy) for one in found.bins) / 1500
    assert found.ece[0] == pytest.approx(gap)


def test_a_calibrated_model_has_a_small_error_and_a_sure_one_has_not() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 20_000)
    labels = (rng.random(20_000) > p).astype(np.int64)
    right = calibration.calibration_error(p, (labels == 0).astype(float), calibration.equal_mass(p))
    assert right[0] < 0.01
    sure = calibration.calibration_error(np.ones(100), np.arange(100) < 60, np.zeros(100, dtype=np.int64))
    assert sure[0] == pytest.approx(0.4)


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_conformal_sets_are_those_of_numpys_quantile_and_cover(coverage: float) -> None:
    held, held_labels = problem(500, seed=1)
    probabilities, labels = problem(4000, seed=2)
    sets, threshold = calibration.conformal_sets(probabilities, calibration.HeldOut(held, held_labels, coverage))
    scores = 1 - held[np.arange(500), held_labels]  # Angelopoulos and Bates, figure 2
    level = np.ceil(501 * coverage) / 500
    q = np.quantile(scores, level, method="inverted_cdf")
    np.testing.assert_array_equal(sets, probabilities >= 1 - q - 1e-12)
    assert threshold == pytest.approx(1 - q)
    assert sets[np.arange(4000), labels].mean() == pytest.approx(coverage, abs=0.04)


def test_too_few_calibration_samples_give_sets_of_all_classes() -> None:
    held, labels = problem(5, seed=1)
    sets, threshold = calibration.conformal_sets(problem(9)[0], calibration.HeldOut(held, labels, 0.9))
    assert sets.all()
    assert threshold == 0.0


def test_a_coverage_of_one_is_refused() -> None:
    with raises_error("KD-EVAL-231"):
        calibration.require_coverage(1.0)


def test_an_interval_contains_its_value() -> None:
    """Resamples of few samples have larger errors than the samples."""
    for seed in range(20):
        probabilities, labels = problem(40, seed=seed)
        found = calibration.measure_calibration(
            probabilities, labels, [sample(f"s{n}") for n in range(40)], Bootstrap(resamples=50)
        )
        for value, low, high in (found.ece, found.adaptive_ece, found.brier):
            assert low <= value <= high
