"""Linear probe and nearest neighbors, against scikit-learn called directly on the same features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from kdkit.core.contracts import DomainScore, Sample
from kdkit.plugins.tasks.probes import LinearProbeTask, NearestNeighborsTask
from tests.errors import raises_error
from tests.plugins.tasks.views import Noisy, sample

LABELS = ("cyst", "nodule", "stone")
QUICK: dict[str, Any] = {"resamples": 20, "fractions": (), "shots": ()}


def split_of(split: str, per_class: int, labels: tuple[str, ...] = LABELS, **more: Any) -> list[Sample]:
    return [
        sample(f"{split}-{label}-{n}", label=label, split=split, **more) for label in labels for n in range(per_class)
    ]


TRAIN, HELD_OUT, TEST = split_of("train", 20), split_of("calibration", 12), split_of("test", 15)


def arrays(view: Noisy, samples: list[Sample]) -> tuple[np.ndarray[Any, Any], list[str]]:
    return view.image(samples), [str(s.label) for s in samples]


def test_the_linear_probe_is_scikit_learns_with_the_penalty_chosen_on_calibration() -> None:
    view, strengths = Noisy(1.6), (0.1, 1.0, 10.0, 100.0)
    task = LinearProbeTask(training=[*TRAIN, *HELD_OUT], strengths=strengths, **QUICK)
    (score,) = task.evaluate(view, TEST)
    (x, y), (xv, yv), (xt, yt) = (arrays(view, part) for part in (TRAIN, HELD_OUT, TEST))
    models = [LogisticRegression(C=c, max_iter=1000, tol=1e-6).fit(x.astype(np.float64), y) for c in strengths]
    best = max(models, key=lambda model: model.score(xv, yv))  # the first of equals: the strongest penalty
    assert score.metrics["accuracy"] == best.score(xt, yt)
    assert 0.4 < score.metrics["accuracy"] < 1
    auc = roc_auc_score(yt, best.predict_proba(xt), multi_class="ovr")
    assert score.metrics["auc"] == pytest.approx(auc, abs=1e-12)
    assert score.outcomes["accuracy"].tolist() == (best.predict(xt) == np.array(yt)).tolist()
    assert (score.count, score.notes) == (45, ())


def test_nearest_neighbors_are_scikit_learns_with_k_chosen_on_calibration() -> None:
    view = Noisy(1.6)
    (score,) = NearestNeighborsTask(training=[*TRAIN, *HELD_OUT], k=(1, 3, 200), **QUICK).evaluate(view, TEST)
    (x, y), (xv, yv), (xt, yt) = (arrays(view, part) for part in (TRAIN, HELD_OUT, TEST))
    models = [KNeighborsClassifier(k, metric="cosine").fit(x, y) for k in (60, 3, 1)]  # 200 is more than there are
    assert score.metrics["accuracy"] == max(models, key=lambda model: model.score(xv, yv)).score(xt, yt)


def test_subsets_have_so_many_labels_and_are_the_same_for_every_model() -> None:
    options = {**QUICK, "fractions": (0.1,), "shots": (1, 8), "draws": 3}
    task = NearestNeighborsTask(training=[*TRAIN, *HELD_OUT], k=(1,), **options)
    first, second = (task.evaluate(Noisy(1.6), TEST)[0] for _ in range(2))
    assert first.metrics == second.metrics
    assert {"accuracy@10%", "accuracy@1-shot", "accuracy@8-shot"} < set(first.metrics)
    assert first.metrics["accuracy@1-shot"] < first.metrics["accuracy@8-shot"]
    assert first.outcomes["accuracy@1-shot"].mean() == pytest.approx(first.metrics["accuracy@1-shot"])
    assert set(first.outcomes["accuracy@1-shot"].round(6)) <= {0, 0.333333, 0.666667, 1}


def scored(training: list[Sample], samples: list[Sample], **options: Any) -> list[DomainScore]:
    return list(NearestNeighborsTask(training=training, **{**QUICK, **options}).evaluate(Noisy(0.5), samples))


def test_unequal_labels_are_noted_and_counted() -> None:
    rare = [sample("rare", label="abscess"), *TEST]
    (score,) = scored([*TRAIN, *HELD_OUT], rare)
    assert any("'abscess'" in note and "1 samples" in note for note in score.notes)
    assert score.outcomes["accuracy"][0] == 0
    (score,) = scored([*TRAIN, *HELD_OUT], split_of("test", 5, LABELS[:2]))
    assert any("no sample of stone" in note for note in score.notes)
    (score,) = scored(TRAIN, TEST)
    assert any("calibration" in note for note in score.notes)
    (score,) = scored([*TRAIN, *HELD_OUT], TEST, fractions=(0.01,))
    assert any(note.startswith("accuracy@1%: one label a class is 5 %") for note in score.notes)
    (score,) = scored([*TRAIN, *HELD_OUT], split_of("test", 5, LABELS[:1]))
    assert set(score.metrics) == {"accuracy"}


def test_domains_without_two_classes_to_fit_on_are_skipped_with_the_reason() -> None:
    one, none = split_of("train", 4, LABELS[:1], domain="mri"), split_of("test", 3, domain="oct")
    test = split_of("test", 4, LABELS[:1], domain="mri")
    task = NearestNeighborsTask(training=[*TRAIN, *one], **QUICK)
    assert [score.domain for score in task.evaluate(Noisy(0.5), [*test, *none, *TEST])] == ["ct"]
    assert "'cyst'" in task.why_skipped(test)
    assert "training sample" in task.why_skipped(none)
    assert "labeled" in task.why_skipped([sample("u")])


def test_a_patient_in_two_splits_is_refused() -> None:
    leak = [*TEST, sample("leak", label="cyst", group="p1")]
    with raises_error("KD-EVAL-014", mentions=("'p1'", "'leak'")):
        scored([*TRAIN, sample("t", label="cyst", split="train", group="p1")], leak)


def test_a_fit_that_does_not_converge_is_noted() -> None:
    task = LinearProbeTask(training=[*TRAIN, *HELD_OUT], strengths=(1e4,), steps=2, **QUICK)
    (score,) = task.evaluate(Noisy(1.6), TEST)
    assert "all labels: 1 fits did not converge" in score.notes


@pytest.mark.parametrize("wrong", [{"fractions": [1.5]}, {"shots": [0]}, {"draws": 0}])
def test_impossible_options_are_refused(wrong: dict[str, Any]) -> None:
    with raises_error("KD-EVAL-016"):
        LinearProbeTask(training=TRAIN, **wrong)
