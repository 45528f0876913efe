"""The zero-shot task on features made by formula, against scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from kdkit.core.contracts import EvaluationTask, Sample
from kdkit.core.evaluation.zero_shot import unit_rows
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.plugins.tasks.zero_shot import ZeroShot
from tests.core.evaluation.trust.synthetic import direction

PROMPTS = {
    "ct": {"cyst": ["a cyst", "cyst"], "nodule": ["a nodule"], "stone": ["a stone", "stone in ct"]},
    "oct": {"drusen": ["drusen"], "healthy": ["healthy retina"]},
}


class Formula:
    """Image features: the direction of the class's first prompt, plus noise."""

    def __init__(self, noise: float) -> None:
        self.noise = noise

    @property
    def name(self) -> str:
        return "formula"

    def image(self, samples: Sequence[Sample]) -> np.ndarray[Any, Any]:
        rows = [self._row(sample) for sample in samples]
        return unit_rows(np.stack(rows), what="image features")

    def _row(self, sample: Sample) -> np.ndarray[Any, Any]:
        clean = direction(PROMPTS[sample.domain][str(sample.label)][0])
        return clean + self.noise * direction(sample.id)

    def text(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        return unit_rows(np.stack([direction(text) for text in texts]), what="prompts")

    def captions(self, samples: Sequence[Sample]) -> np.ndarray[Any, Any]:
        return self.text([sample.text for sample in samples])


def samples(per_class: int, domain: str = "ct", labels: Sequence[str] | None = None) -> list[Sample]:
    return [
        Sample(f"{domain}-{label}-{n}", Path("/nowhere.png"), "", domain, label, "test")
        for label in labels or PROMPTS[domain]
        for n in range(per_class)
    ]


def test_accuracy_and_auc_are_scikit_learns() -> None:
    data, view = samples(40), Formula(noise=1.5)
    (score,) = ZeroShot(prompts=PROMPTS).evaluate(view, data)
    names = list(PROMPTS["ct"])
    classes = np.stack([view.text(PROMPTS["ct"][name]).mean(axis=0) for name in names])
    logits = 100 * view.image(data).astype(np.float64) @ (classes / np.linalg.norm(classes, axis=1)[:, None]).T
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = odds / odds.sum(axis=1, keepdims=True)
    truth = [names.index(str(sample.label)) for sample in data]
    assert score.metrics["accuracy"] == accuracy_score(truth, p.argmax(axis=1))
    assert score.metrics["auc"] == pytest.approx(roc_auc_score(truth, p, multi_class="ovr"), abs=1e-3)
    assert 0.4 < score.metrics["accuracy"] < 1
    assert score.count == 120
    assert score.outcomes["accuracy"].mean() == score.metrics["accuracy"]
    assert score.ids == tuple(sample.id for sample in data)
    for metric, (low, high) in score.intervals.items():
        assert low < score.metrics[metric] < high


def test_the_scale_matters_for_auc_of_more_than_two_classes_and_not_for_accuracy() -> None:
    data, view = samples(40), Formula(noise=2.0)
    (soft,) = ZeroShot(prompts=PROMPTS, logit_scale=1.0).evaluate(view, data)
    (sharp,) = ZeroShot(prompts=PROMPTS).evaluate(view, data)
    assert soft.metrics["accuracy"] == sharp.metrics["accuracy"]
    assert soft.metrics["auc"] != sharp.metrics["auc"]
    pair = samples(40, "oct")
    (soft,), (sharp,) = (ZeroShot(prompts=PROMPTS, logit_scale=s).evaluate(view, pair) for s in (1.0, 100.0))
    assert soft.metrics["auc"] == pytest.approx(sharp.metrics["auc"], abs=1e-12)


def test_domains_are_scored_apart_and_the_unusable_are_left_out() -> None:
    unlabeled = [Sample("x", Path("/nowhere.png"), "", "ct", None, "test")]
    foreign = [Sample("y", Path("/nowhere.png"), "", "mr", "tumour", "test")]
    data = samples(5, "oct") + samples(5) + unlabeled + foreign
    scores = ZeroShot(prompts=PROMPTS).evaluate(Formula(0.1), data)
    assert [(score.domain, score.count) for score in scores] == [("ct", 15), ("oct", 10)]
    assert [score.metrics["accuracy"] for score in scores] == [1.0, 1.0]
    assert ZeroShot(prompts=PROMPTS).evaluate(Formula(0.1), samples(5, "oct", ["drusen"])) == []


def test_an_absent_class_and_few_samples_are_noted() -> None:
    (score,) = ZeroShot(prompts=PROMPTS).evaluate(Formula(1.0), samples(3, labels=["cyst", "stone"]))
    absent, few = score.notes
    assert "nodule" in absent
    assert "6 samples" in few
    assert 0 <= score.metrics["auc"] <= 1


def test_one_sample_a_class_is_enough_to_run() -> None:
    (score,) = ZeroShot(prompts=PROMPTS).evaluate(Formula(0.1), samples(1, "oct"))
    assert score.metrics == {"accuracy": 1.0, "auc": 1.0}


def test_the_catalogue_makes_it() -> None:
    task = load_catalogue().make("task", "zero-shot", prompts=PROMPTS, resamples=10)
    assert isinstance(task, ZeroShot)
    assert (task.logit_scale, task.how.resamples) == (100.0, 10)
    check: EvaluationTask = task
    assert len(check.evaluate(Formula(0.1), samples(2, "oct"))) == 1
