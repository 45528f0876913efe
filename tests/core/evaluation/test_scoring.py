"""Scores with intervals, over all samples and subgroups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score

from kdkit.core.contracts import DomainScore, ModelFeatures, Sample
from kdkit.core.evaluation.compare import compare_models
from kdkit.core.evaluation.metrics import bootstrap, interval, macro_auc
from kdkit.core.evaluation.retention import measure_retention
from kdkit.core.evaluation.scores import Evaluation
from kdkit.core.evaluation.scoring import Bootstrap, Predicted, confusion, score_domain
from tests.core.evaluation.test_compare import Named
from tests.plugins.tasks.views import sample

COUNT = 240
SEX = {"sex": {f"s{n}": "FM"[n % 2] for n in range(COUNT)}, "site": {f"s{n}": "ab"[n >= 5] for n in range(COUNT)}}


class Answered:
    """Scores by formula: ``right`` of each sample, and an AUC of noisy scores."""

    def __init__(self, seed: int, **weaker: float) -> None:
        rng = np.random.default_rng(seed)
        self.labels = np.arange(COUNT) % 3 % 2
        self.right = (rng.random(COUNT) < 0.8).astype(np.float64)
        for value, share in weaker.items():
            rows = [n for n in range(COUNT) if SEX["sex"][f"s{n}"] == value]
            self.right[rows] = rng.random(len(rows)) < share
        self.scores = np.stack([-self.labels, self.labels], axis=1) + rng.standard_normal((COUNT, 1)) * [[-1, 1]]

    def evaluate(self, view: ModelFeatures, samples: Sequence[Sample]) -> Sequence[DomainScore]:
        assert view.name == "v1"
        predicted = Predicted(
            samples,
            self.labels,
            {"accuracy": self.right},
            {"auc": lambda rows, counts: macro_auc(self.labels[rows], self.scores[rows], counts)},
        )
        return [score_domain("ct", predicted, Bootstrap(subgroups=SEX))]


def samples(group: int = 1) -> list[Sample]:
    extra: list[dict[str, Any]] = [{} if group == 1 else {"group": f"p{n // group}"} for n in range(COUNT)]
    return [sample(f"s{n}", label=str(n % 3 % 2), **extra[n]) for n in range(COUNT)]


def evaluation(task: Answered, group: int = 1) -> Evaluation:
    return compare_models(task, [Named("v1")], [], samples(group), subgroups=SEX)


def test_subgroups_are_the_metrics_of_their_samples() -> None:
    task = Answered(0)
    score = evaluation(task).model("v1").domains["ct"]
    women = next(s for s in score.subgroups if s.value == "F")
    rows = np.arange(0, COUNT, 2)
    assert women.metrics["accuracy"] == pytest.approx(task.right[rows].mean())
    assert women.metrics["auc"] == pytest.approx(roc_auc_score(task.labels[rows], task.scores[rows, 1]))
    drawn = bootstrap(task.labels[rows], lambda counts: task.right[rows] @ counts / counts.sum(axis=0))
    assert women.intervals["accuracy"] == pytest.approx(interval(drawn))


def test_a_subgroup_too_small_to_judge_is_said() -> None:
    small = [s for s in evaluation(Answered(0)).model("v1").domains["ct"].subgroups if s.column == "site"]
    assert [(s.value, s.count, bool(s.metrics), bool(s.note)) for s in small] == [
        ("a", 5, False, True),
        ("b", COUNT - 5, True, False),
    ]
    few = evaluation(Answered(0), group=60).model("v1").domains["ct"].subgroups  # 4 patients
    assert not any(s.metrics for s in few)


def test_json_keeps_everything() -> None:
    found = evaluation(Answered(0), group=3)
    back = Evaluation.from_json(found.to_json())
    ours, theirs = found.model("v1").domains["ct"], back.model("v1").domains["ct"]
    assert (theirs.subgroups, theirs.groups, back.groups, back.columns) == (
        ours.subgroups, COUNT // 3, found.groups, found.columns,
    )  # fmt: skip
    np.testing.assert_array_equal(theirs.draws["auc"], ours.draws["auc"])


def test_retention_draws_groups_and_equals_the_plain_bootstrap_where_each_has_one_sample() -> None:
    before, after = Answered(0), Answered(1)
    alone = measure_retention(evaluation(before), evaluation(after)).domains["ct"]
    grouped = measure_retention(evaluation(before, 4), evaluation(after, 4)).domains["ct"]
    assert (alone.groups, grouped.groups) == (0, COUNT // 4)
    assert (alone.points, alone.before) == pytest.approx((grouped.points, grouped.before))
    assert (alone.low, alone.high) != (grouped.low, grouped.high)


def test_a_metric_without_outcomes_is_compared_by_its_draws() -> None:
    before, after = Answered(0), Answered(1)
    change = measure_retention(evaluation(before), evaluation(after), metric="auc").domains["ct"]
    labels = before.labels

    def difference(counts: Any) -> Any:
        return macro_auc(labels, after.scores, counts) - macro_auc(labels, before.scores, counts)

    low, high = interval(bootstrap(labels, difference))
    assert (change.low, change.high) == pytest.approx((100 * low, 100 * high), abs=1e-3)


def test_a_subgroup_that_lost_is_a_check_of_its_own() -> None:
    before, after = Answered(0), Answered(0, F=0.3)
    kept = measure_retention(evaluation(before), evaluation(after), by={"sex": 2.0}, tolerance=100)
    women, men = kept.checks
    assert (women.name, women.over_tolerance, women.significant, women.tolerance) == ("ct, sex F", True, True, 2.0)
    assert (men.name, men.points, men.over_tolerance) == ("ct, sex M", 0.0, False)
    assert not kept.over_tolerance


def test_the_confusion_matrix_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels, chosen = rng.integers(0, 4, (2, 50))
    found = confusion(("a", "b", "c", "d"), labels, chosen)
    assert found.counts == tuple(map(tuple, confusion_matrix(labels, chosen, labels=range(4)).tolist()))


def test_subgroups_of_a_metric_without_outcomes_are_said_not_to_be_compared() -> None:
    before, after = evaluation(Answered(0)), evaluation(Answered(1))
    kept = measure_retention(before, after, metric="auc", by={"sex": 1.0})
    assert (set(kept.domains), kept.checks, kept.not_compared) == ({"ct"}, (), ("ct, sex",))
    assert measure_retention(before, after, by={"sex": 1.0}).not_compared == ()


def test_a_domain_of_one_group_has_the_widest_interval() -> None:
    found = evaluation(Answered(0), group=COUNT)
    score = found.model("v1").domains["ct"]
    assert (score.groups, score.intervals["accuracy"], score.intervals["auc"]) == (1, (0, 1), (0, 1))
    assert "only 1 group" in score.notes[0]
    for metric in ("accuracy", "auc"):
        change = measure_retention(found, evaluation(Answered(1), group=COUNT), metric=metric).domains["ct"]
        assert (change.low, change.high, change.significant) == (-100, 100, False)
