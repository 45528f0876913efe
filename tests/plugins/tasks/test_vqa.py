"""Closed questions by frozen encoders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from kdkit.core.contracts import Sample
from kdkit.plugins.tasks.vqa import ALONE, ClosedQuestions
from tests.plugins.tasks.views import Noisy, sample

QUESTIONS = ("is it a ct?", "which organ?")


def questions(count: int, split: str) -> list[Sample]:
    found = []
    for n in range(count):
        kind, which = n % 2, (n // 2) % 2
        answer = (("yes", "no"), ("Lung.", "liver"))[which][kind]
        facts: dict[str, Any] = {"question": QUESTIONS[which], "answer": answer}
        name, shows = f"{split}{n}", ("ct lung", "mr liver")[kind]
        found.append(sample(name, shows, split=split, image=name, metadata=facts))
    return found


def test_the_head_equals_scikit_learn_and_needs_the_image() -> None:
    train, test, model = questions(80, "train"), questions(60, "test"), Noisy(1.0)
    (score,) = ClosedQuestions(training=train, strengths=(10.0,), resamples=50).evaluate(model, test)

    def inputs(samples: list[Sample]) -> Any:
        image, text = model.image(samples), model.text([s.extra["metadata"]["question"] for s in samples])
        product = image * text
        return np.concatenate([image, text, product / np.linalg.norm(product, axis=1, keepdims=True)], axis=1)

    def answers(samples: list[Sample]) -> list[str]:
        return [s.extra["metadata"]["answer"].lower().rstrip(".") for s in samples]

    direct = LogisticRegression(C=10.0, max_iter=1000, tol=1e-6).fit(inputs(train).astype(np.float64), answers(train))
    assert score.metrics["accuracy"] == pytest.approx(direct.score(inputs(test), answers(test)))
    assert score.metrics["accuracy"] > 0.9
    assert score.metrics[ALONE] == pytest.approx(0.5, abs=0.01)


def test_an_answer_that_training_lacks_counts_as_wrong() -> None:
    test = [*questions(8, "test"), sample("x", split="test", metadata={"question": "how?", "answer": "so"})]
    (score,) = ClosedQuestions(training=questions(40, "train"), resamples=20).evaluate(Noisy(0.5), test)
    assert score.outcomes["accuracy"][-1] == 0
    assert any("no training sample has" in note for note in score.notes)
    same = [s for s in questions(40, "train") if s.extra["metadata"]["answer"] == "yes"]
    assert ClosedQuestions(training=same).evaluate(Noisy(0.5), test) == []
