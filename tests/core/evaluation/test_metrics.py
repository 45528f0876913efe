"""Metrics against scikit-learn and against resampling written out by hand."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from kdkit.core.evaluation import metrics

Array = np.ndarray[Any, Any]


def problem(seed: int, n: int, classes: int, levels: int | None = None) -> tuple[Array, Array]:
    """Labels in which every class occurs, and softmax scores; few ``levels`` of logits make many ties."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=n - classes)])
    logits = rng.normal(size=(n, classes)) + np.eye(classes)[labels]
    if levels is not None:
        logits = np.round(logits * levels) / levels
    odds = np.exp(logits)
    return labels, odds / odds.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [3, 5])
@pytest.mark.parametrize("levels", [None, 1])
def test_macro_auc_equals_scikit_learn(classes: int, levels: int | None) -> None:
    for seed in range(5):
        labels, scores = problem(seed, 60, classes, levels)
        expected = roc_auc_score(labels, scores, multi_class="ovr", average="macro")
        assert metrics.macro_auc(labels, scores)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("levels", [None, 1])
def test_binary_auc_is_scikit_learns(levels: int | None) -> None:
    labels, scores = problem(1, 50, 2, levels)
    assert metrics.macro_auc(labels, scores)[0] == pytest.approx(roc_auc_score(labels, scores[:, 1]), abs=1e-12)


def test_auc_worked_by_hand() -> None:
    labels = np.array([1, 1, 0, 0])
    second = np.array([0.8, 0.4, 0.4, 0.1])  # pairs: .8>.4, .8>.1, .4=.4 (half), .4>.1 -> 3.5 of 4
    assert metrics.class_auc(labels, np.stack([1 - second, second], axis=1))[1, 0] == 3.5 / 4


@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(8, 40))
def test_auc_is_a_rank_statistic(seed: int, classes: int, n: int) -> None:
    labels, scores = problem(seed, n, classes, levels=2)
    per_class = metrics.class_auc(labels, scores)
    assert ((per_class >= 0) & (per_class <= 1)).all()
    np.testing.assert_allclose(metrics.class_auc(labels, 4 * scores), per_class, atol=1e-12)
    np.testing.assert_allclose(metrics.class_auc(labels, -scores), 1 - per_class, atol=1e-12)


def test_a_class_without_samples_is_left_out() -> None:
    labels, scores = problem(0, 40, 3)
    kept = labels != 1
    per_class = metrics.class_auc(labels[kept], scores[kept])
    assert np.isnan(per_class[1, 0])
    assert metrics.macro_auc(labels[kept], scores[kept])[0] == pytest.approx(per_class[[0, 2], 0].mean())


def test_auc_of_a_single_class_is_undefined() -> None:
    assert np.isnan(metrics.macro_auc(np.zeros(4, dtype=np.int64), np.random.default_rng(0).random((4, 2))))[0]


def test_counts_mean_repeated_samples() -> None:
    labels, scores = problem(3, 30, 3, levels=1)
    for counts in metrics.resample_counts(labels, resamples=4, seed=7):
        for column in range(counts.shape[1]):
            rows = np.repeat(np.arange(30), counts[:, column].astype(int))
            expected = metrics.macro_auc(labels[rows], scores[rows])[0]
            assert metrics.macro_auc(labels, scores, counts)[column] == pytest.approx(expected, abs=1e-12)
            right = (scores.argmax(axis=1) == labels).astype(float)
            assert metrics.accuracy(right, counts)[column] == pytest.approx(right[rows].mean(), abs=1e-12)


def test_resamples_are_stratified_reproducible_and_do_not_depend_on_the_model() -> None:
    labels = np.array([0] * 7 + [1] * 2 + [2] * 1)
    first, second = (np.concatenate(list(metrics.resample_counts(labels, 50, s)), axis=1) for s in (1, 1))
    assert (first == second).all()
    for c, size in ((0, 7), (1, 2), (2, 1)):
        assert (first[labels == c].sum(axis=0) == size).all()
    assert first[:7].std() > 0


def test_blocks_cover_all_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_CHUNK", 50)
    blocks = list(metrics.resample_counts(np.arange(10) % 2, resamples=12))
    assert [block.shape for block in blocks] == [(10, 5), (10, 5), (10, 2)]


def test_the_accuracy_interval_has_the_width_of_theory() -> None:
    rng = np.random.default_rng(0)
    right = (rng.random(2000) < 0.8).astype(float)
    drawn = metrics.bootstrap(np.zeros(2000, dtype=np.int64), lambda w: metrics.accuracy(right, w), 4000)
    low, high = metrics.interval(drawn)
    p = right.mean()
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(p * (1 - p) / 2000), rel=0.06)
    assert low < p < high


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng, covered = np.random.default_rng(1), 0
    for _ in range(300):
        right = (rng.random(120) < 0.7).astype(float)
        labels = np.arange(120) % 3
        drawn = metrics.bootstrap(labels, lambda w, r=right: metrics.accuracy(r, w), 300)  # type: ignore[misc]
        low, high = metrics.interval(drawn)
        covered += low <= 0.7 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_paired_difference_is_the_plain_paired_bootstrap() -> None:
    rng = np.random.default_rng(2)
    before = (rng.random(400) < 0.7).astype(float)
    after = np.where(rng.random(400) < 0.9, before, 1 - before)
    value, low, high = metrics.paired_difference(before, after, resamples=20_000)
    rows = rng.integers(400, size=(20_000, 400))
    plain = (after - before)[rows].mean(axis=1)
    assert value == pytest.approx((after - before).mean(), abs=1e-12)
    assert (low, high) == pytest.approx(tuple(np.quantile(plain, [0.025, 0.975])), abs=0.003)


def test_pairing_is_sharper_than_two_intervals() -> None:
    rng = np.random.default_rng(3)
    before = (rng.random(500) < 0.6).astype(float)
    after = before.copy()
    after[:5] = 1 - after[:5]
    _, low, high = metrics.paired_difference(before, after)
    assert high - low < 0.03  # two independent accuracies of 500 samples would give 0.12


def test_a_model_equals_itself() -> None:
    assert metrics.paired_difference(np.array([1.0, 0.0]), np.array([1.0, 0.0])) == (0.0, 0.0, 0.0)


def test_mean_interval_is_that_of_independent_normals() -> None:
    values = np.array([0.5, 0.7, 0.9])
    mean, low, high = metrics.mean_interval(values, values - 0.03, values + 0.06)
    assert mean == pytest.approx(0.7)
    assert (mean - low, high - mean) == pytest.approx((0.03 / np.sqrt(3), 0.06 / np.sqrt(3)))
    weighted = metrics.mean_interval(values, values - 0.03, values + 0.03, np.array([1.0, 0.0, 0.0]))
    assert weighted == pytest.approx((0.5, 0.47, 0.53))


def test_ten_models_on_nine_domains_take_seconds() -> None:
    labels, scores = problem(0, 1000, 6)

    def auc(counts: Array) -> Array:
        return metrics.macro_auc(labels, scores, counts)

    start = time.process_time()
    metrics.bootstrap(labels, auc)
    assert (time.process_time() - start) * 90 < 60  # of processor time: others may be busy


@given(st.integers(1, 500), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_interval_equals_scipy(count: int, share: float, level: float) -> None:
    correct = round(share * count)
    expected = binomtest(correct, count).proportion_ci(level, method="wilson")
    lower, upper = metrics.wilson(np.array([correct]), np.array([count]), level)
    assert (lower[0], upper[0]) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= lower[0] <= correct / count <= upper[0] <= 1


def test_wilson_interval_of_no_samples_is_nan() -> None:
    assert np.isnan(metrics.wilson(np.zeros((2, 1)), np.zeros((2, 1)))).all()


def test_wilson_interval_of_all_right_has_a_width() -> None:
    lower, upper = metrics.wilson(np.array([10]), np.array([10]))
    assert lower[0] == pytest.approx(0.7225, abs=1e-4)
    assert upper[0] == 1.0


def test_a_bootstrap_of_groups_draws_whole_groups_and_keeps_every_class() -> None:
    labels, groups = np.array([0, 0, 1, 1, 0, 1]), np.array([0, 0, 0, 1, 2, 3])
    (counts,) = metrics.resample_counts(labels, 200, groups=groups)
    assert (counts[0] == counts[1]).all()
    assert (counts[0] == counts[2]).all()
    for label in (0, 1):
        assert (counts[labels == label].sum(axis=0) > 0).all()
    alone = np.arange(6)
    np.testing.assert_array_equal(
        next(metrics.resample_counts(labels, 9, groups=alone)), next(metrics.resample_counts(labels, 9))
    )


def test_the_interval_is_wider_where_samples_of_a_group_agree() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 10)
    before, after = np.zeros(200), np.repeat(rng.integers(0, 2, 20), 10).astype(np.float64)
    value, low, high = metrics.paired_difference(before, after)
    same, wider_low, wider_high = metrics.paired_difference(before, after, groups=groups)
    assert value == same == after.mean()
    assert wider_high - wider_low > 2 * (high - low)


def test_the_median_rank_under_counts_is_that_of_repeated_ranks() -> None:
    rng = np.random.default_rng(0)
    for n in range(1, 9):
        ranks, counts = rng.integers(1, 9, n), rng.integers(0, 3, (n, 5))
        counts[0] += 1
        expected = [np.median(np.repeat(ranks, column)) for column in counts.T]
        assert metrics.median_rank(ranks, counts).tolist() == expected
    assert metrics.median_rank(np.array([7, 1, 2, 3])).tolist() == [2.5]


def test_the_grouped_interval_has_the_width_of_theory_on_simulated_clusters() -> None:
    """Samples of a group share a part of their noise: Var(mean) = s^2 (1 + (m - 1) rho) / n (Kish 1965, 5.4)."""
    rng, size, rho = np.random.default_rng(1), 8, 0.5
    groups = np.repeat(np.arange(400), size)
    noise = np.sqrt(rho) * rng.standard_normal(400)[groups] + np.sqrt(1 - rho) * rng.standard_normal(len(groups))
    _, low, high = metrics.paired_difference(np.zeros(len(groups)), noise, groups=groups, resamples=4000)
    expected = 2 * 1.959964 * np.sqrt((1 + (size - 1) * rho) / len(groups))
    assert high - low == pytest.approx(expected, rel=0.1)
    assert metrics.design_effect(noise, groups) == pytest.approx(1 + (size - 1) * rho, rel=0.15)


def test_groups_of_one_sample_change_nothing() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 2, (2, 300)).astype(np.float64)
    alone = rng.permutation(300)
    assert metrics.paired_difference(before, after, groups=alone) == metrics.paired_difference(before, after)
    assert metrics.design_effect(after, alone) == 1.0
    assert metrics.design_effect(np.ones(6), np.array([0, 0, 0, 1, 1, 1])) == 3.0  # nothing shows that they differ


def test_groups_with_class_sets_of_their_own_vary_in_the_bootstrap() -> None:
    labels, groups = np.repeat(np.arange(20), 5), np.repeat(np.arange(20), 5)
    hits = (np.arange(100) % 20 < 10).astype(float)
    hits[:50] = 0.0
    values = metrics.bootstrap(labels, lambda counts: metrics.accuracy(hits, counts), 2000, groups=groups)
    means = hits.reshape(20, 5).mean(axis=1)
    assert values.std() == pytest.approx(means.std() / np.sqrt(20), rel=0.1), "the cluster bootstrap of 20 equal groups"
    one_alone = np.where(groups == 0, 0, 1)  # 19 groups of one set, and one of another
    (counts,) = metrics.resample_counts(one_alone, 300, groups=groups)
    assert set(counts[0]) > {0, 1}
    assert (counts.sum(axis=0) == 100).all()


def test_one_group_or_one_sample_shows_nothing_of_chance() -> None:
    before, after = np.ones(4), np.array([1.0, 0.0, 1.0, 1.0])
    assert metrics.paired_difference(before, after, groups=np.zeros(4, dtype=np.int64)) == (-0.25, -1, 1)
    assert metrics.paired_difference(before[:1], after[1:2]) == (-1, -1, 1)


def test_a_class_that_a_resample_lacks_counts_in_the_others() -> None:
    labels, scores = np.array([0, 1, 2, 2]), np.eye(3)[[0, 1, 2, 0]]
    counts = np.array([[1, 1, 1, 1], [0, 1, 1, 1]], dtype=np.float32).T
    both = metrics.macro_auc(labels, scores, counts)
    alone = [metrics.macro_auc(labels, scores, counts[:, [n]])[0] for n in range(2)]
    assert both.tolist() == alone
