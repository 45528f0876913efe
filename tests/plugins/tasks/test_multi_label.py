"""Findings by prompts, against scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from kdkit.core.contracts import Sample
from kdkit.core.evaluation.metrics import average_precision
from kdkit.plugins.tasks.multi_label import MultiLabel
from tests.plugins.tasks.views import Noisy, sample

Array = np.ndarray[Any, Any]

NAMES = ("edema", "effusion", "nodule")
FINDINGS = {"xray": {name: ([name, f"{name} here"], [f"no {name}"]) for name in NAMES}}


def samples(count: int = 120) -> list[Sample]:
    found = []
    for n in range(count):
        names = [name for k, name in enumerate(NAMES[:2]) if (n >> k) & 1]
        found.append(sample(f"s{n}", " ".join(names), "xray", findings=names, image=f"{n}.png"))
    return found


def test_figures_equal_scikit_learns() -> None:
    data, model = samples(), Noisy(1.0)
    (score,) = MultiLabel(findings=FINDINGS, resamples=100).evaluate(model, data)
    truth = np.array([[name in s.extra["findings"] for name in NAMES[:2]] for s in data])
    image = model.image(data).astype(np.float64)

    def side(texts: list[str]) -> Array:
        mean = model.text(texts).mean(axis=0)
        return np.asarray(image @ (mean / np.linalg.norm(mean)))

    found = np.stack([side([name, f"{name} here"]) - side([f"no {name}"]) for name in NAMES[:2]], axis=1)
    assert score.metrics["auc"] == pytest.approx(roc_auc_score(truth, found), abs=1e-6)
    assert score.metrics["mean average precision"] == pytest.approx(average_precision_score(truth, found), abs=1e-6)
    assert score.metrics["auc/effusion"] == pytest.approx(roc_auc_score(truth[:, 1], found[:, 1]), abs=1e-6)
    assert "auc/nodule" not in score.metrics  # no sample has it
    assert any("nodule" in note for note in score.notes)
    assert set(score.draws) == {"auc", "mean average precision"}
    low, high = score.intervals["auc"]
    assert low < score.metrics["auc"] < high


def test_average_precision_under_counts_is_that_of_repeated_samples() -> None:
    rng = np.random.default_rng(0)
    positive, scores = rng.random(40) < 0.3, rng.integers(0, 9, 40).astype(float)
    counts = rng.integers(0, 3, (40, 6))
    expected = [average_precision_score(np.repeat(positive, c), np.repeat(scores, c)) for c in counts.T]
    assert average_precision(positive, scores, counts) == pytest.approx(expected)
    assert np.isnan(average_precision(np.zeros(3, dtype=bool), np.arange(3.0)))[0]


def test_findings_that_all_samples_share_cannot_be_judged() -> None:
    same = [sample(f"s{n}", domain="xray", findings=["edema"]) for n in range(4)]
    task = MultiLabel(findings=FINDINGS)
    assert task.evaluate(Noisy(0.1), same) == []
    assert task.why_skipped(same)


def test_a_finding_without_negative_prompts_is_scored_by_its_positive_ones() -> None:
    data, model = samples(), Noisy(1.0)
    (score,) = MultiLabel(findings={"xray": {"edema": (["edema"], [])}}, resamples=20).evaluate(model, data)
    cosine = model.image(data) @ model.text(["edema"])[0]
    truth = ["edema" in s.extra["findings"] for s in data]
    assert score.metrics["auc"] == pytest.approx(roc_auc_score(truth, cosine), abs=1e-6)
