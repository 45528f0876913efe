"""Patients from several images, against scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score, roc_curve

from kdkit.core.contracts import Sample
from kdkit.core.evaluation.metrics import decisions, sensitivity_at
from kdkit.core.evaluation.zero_shot import unit_rows
from kdkit.plugins.tasks.attention import AttentionPooling
from kdkit.plugins.tasks.patients import Patients
from tests.errors import raises_error
from tests.plugins.tasks.views import Noisy, sample

Array = np.ndarray[Any, Any]


def bags(count: int, split: str, images: int = 3, one: bool = False) -> list[Sample]:
    """Patients that are ill or well; with ``one``, a single image shows it."""
    found = []
    for n in range(count):
        label = ("ill", "well")[n % 2]
        for image in range(images):
            shows = label if not one or image == n % images else "nothing"
            name, group = f"{split}{n}-{image}", f"{split}{n}"
            found.append(sample(name, shows, label=label, split=split, group=group, image=name))
    return found


class Shown(Noisy):
    """An image is the direction of its caption plus noise."""

    def image(self, samples: Any) -> Array:
        rows = [self._direction(s.text) + self.noise * self._direction(str(s.image)) for s in samples]
        return unit_rows(np.stack(rows), what="image features")


def test_mean_pooling_equals_scikit_learn() -> None:
    train, test, model = bags(40, "train"), bags(50, "test"), Shown(4.0)
    task = Patients(training=train, attention=False, strengths=(1.0,), resamples=50, positive="ill")
    (score,) = task.evaluate(model, test)

    def means(samples: list[Sample]) -> tuple[Array, Array]:
        rows = model.image(samples).reshape(-1, 3, model.width).mean(axis=1)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True), np.array([s.label == "ill" for s in samples[::3]])

    (x, y), (rows, truth) = means(train), means(test)
    fitted = LogisticRegression(C=1.0, max_iter=1000, tol=1e-6).fit(x.astype(np.float64), y)
    odds, chosen = fitted.predict_proba(rows)[:, 1], fitted.predict(rows)
    false, true, _ = roc_curve(truth, odds, drop_intermediate=False)
    expected = {
        "accuracy": (chosen == truth).mean(),
        "auc": roc_auc_score(truth, odds),
        "f1": f1_score(truth, chosen),
        "precision": precision_score(truth, chosen),
        "recall": recall_score(truth, chosen),
        "sensitivity@90% specificity": true[false <= 0.1 + 1e-9].max(),
    }
    assert {name: pytest.approx(value, abs=1e-6) for name, value in expected.items()} == dict(score.metrics)
    assert score.count == 50
    assert all(low <= score.metrics[name] <= high for name, (low, high) in score.intervals.items())


def test_attention_finds_the_image_that_shows_it() -> None:
    training = [*bags(60, "train", 6, one=True), *bags(30, "calibration", 6, one=True)]
    task = Patients(training=training, strengths=(1.0,), resamples=10)
    (score,) = task.evaluate(Shown(0.6, width=12), bags(40, "test", 6, one=True))
    assert score.metrics["accuracy (attention)"] > 0.9
    assert {f"{name} (attention)" for name in score.metrics if "(" not in name} < set(score.metrics)


def test_attention_is_a_weighted_mean_of_each_bag() -> None:
    torch.manual_seed(0)
    model, images, bag_of = AttentionPooling(5, 3), torch.randn(7, 5), torch.tensor([0, 1, 0, 2, 1, 1, 0])
    expected = []
    for bag in range(3):
        own = images[bag_of == bag]
        score = model.score(torch.tanh(model.content(own)) * torch.sigmoid(model.gate(own)))
        expected.append(model.classify((score.softmax(dim=0) * own).sum(dim=0)))
    torch.testing.assert_close(model(images, bag_of, 3), torch.stack(expected))


def test_measures_under_counts_are_those_of_repeated_samples() -> None:
    rng = np.random.default_rng(0)
    positive, chosen, scores = rng.random(60) < 0.4, rng.random(60) < 0.5, rng.integers(0, 20, 60).astype(float)
    counts = rng.integers(0, 3, (60, 5))
    for column, precision, recall, f1 in zip(counts.T, *decisions(positive, chosen, counts), strict=True):
        truth, said = np.repeat(positive, column), np.repeat(chosen, column)
        direct = (precision_score(truth, said), recall_score(truth, said), f1_score(truth, said))
        assert (precision, recall, f1) == pytest.approx(direct)
    for column, found in zip(counts.T, sensitivity_at(0.8, positive, scores, counts), strict=True):
        false, true, _ = roc_curve(np.repeat(positive, column), np.repeat(scores, column), drop_intermediate=False)
        assert found == pytest.approx(true[false <= 0.2 + 1e-9].max())


def test_bad_patients_are_refused() -> None:
    train, test = bags(6, "train"), bags(4, "test")
    mixed = [*test, sample("odd", label="well", split="test", group="test0")]
    with raises_error("KD-EVAL-238"):
        Patients(training=train).evaluate(Shown(1.0), mixed)
    with raises_error("KD-EVAL-237"):
        Patients(training=train, positive="sick").evaluate(Shown(1.0), test)
    with raises_error("KD-EVAL-236"):
        Patients(training=train, specificity=1.0)
    with raises_error("KD-EVAL-014"):
        Patients(training=train).evaluate(Shown(1.0), [*test, sample("y", label="ill", split="test", group="train0")])
    one = [s for s in train if s.label == "ill"]
    assert Patients(training=one).evaluate(Shown(1.0), test) == []


def test_a_subgroup_is_measured_on_its_own_classes() -> None:
    """A perfect model is perfect in a subgroup that lacks a class, and without positive patients only accuracy is."""
    train, test = bags(40, "train"), bags(60, "test")
    sex = {s.id: "M" if s.label == "ill" and n // 3 % 6 else "F" for n, s in enumerate(test)}
    for positive in ("", "well"):
        task = Patients(
            training=train, attention=False, strengths=(1.0,), resamples=20, positive=positive, subgroups={"sex": sex}
        )
        (score,) = task.evaluate(Shown(0.1), test)
        (men,) = [own for own in score.subgroups if own.value == "M"]
        measured = {"accuracy", "precision", "recall", "f1"} if positive == "" else {"accuracy"}
        assert dict(men.metrics) == dict.fromkeys(measured, 1.0)


def test_a_domain_without_the_positive_class_has_no_averages_under_its_names() -> None:
    train = [*bags(20, "train"), sample("other", domain="mri", label="sick", split="train", group="other")]
    (score,) = Patients(training=train, attention=False, resamples=20, positive="sick").evaluate(
        Shown(0.1), bags(20, "test")
    )
    assert set(score.metrics) == {"accuracy"}
    assert any("'sick'" in note for note in score.notes)
