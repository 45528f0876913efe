"""Open, closed and multiple choice questions in one domain."""

from __future__ import annotations

import numpy as np
import pytest

from kdkit.core.contracts import Sample
from kdkit.plugins.answers.question_grading import grade_questions
from kdkit.plugins.answers.replies import Reply, Tools
from kdkit.plugins.answers.task import Answers
from tests.plugins.answers.test_task import Said, question

OPTIONS = ["CT", "MRI", "Ultrasound"]


def test_each_kind_has_its_metrics() -> None:
    replies = [
        Reply.of("B. MRI", "MRI", {"choices": OPTIONS}),
        Reply.of("C", "A", {"choices": OPTIONS}),
        Reply.of("Yes.", "yes"),
        Reply.of("the left lobe", "left upper lobe"),
    ]
    graded = grade_questions(replies, Tools())
    assert graded.outcomes["accuracy"].tolist() == pytest.approx([1, 0, 1, 2 / 3])
    assert graded.strata.tolist() == [2, 2, 1, 0]
    every = np.ones((4, 1))
    found = {name: float(metric(every)[0]) for name, metric in graded.others.items()}
    assert found["choice_accuracy"] == 0.5
    assert found["choice_accuracy_published"] == 1.0  # of these texts, CT is the most similar to C
    assert found["closed_accuracy"] == 1.0
    assert found["open_recall"] == pytest.approx(2 / 3)
    assert found["exact_match"] == 0.5  # of the two that have no options
    assert found["open_bleu"] == pytest.approx(np.exp(-1 / 2))
    choices = grade_questions(replies[:2], Tools())
    assert set(choices.others) == {"choice_accuracy", "choice_accuracy_published"}


def test_the_best_of_several_references_counts() -> None:
    reply = Reply.of("septic emboli", "aspergillosis", {"alternatives": ["septic emboli", "emboli"]})
    graded = grade_questions([reply], Tools())
    assert graded.outcomes["accuracy"].tolist() == [1.0]
    assert float(graded.others["open_exact"](np.ones((1, 1)))[0]) == 1.0
    assert float(graded.others["open_f1_legacy"](np.ones((1, 1)))[0]) == 1.0


def asked(size: int, images: int) -> list[Sample]:
    samples = [question(f"{n}", "yes", "vqa/ct", answer_type="CLOSED") for n in range(size)]
    return [
        Sample(one.id, one.image.with_name(f"{n % images}.png"), one.text, one.domain, None, "test", extra=one.extra)  # type: ignore[union-attr]
        for n, one in enumerate(samples)
    ]


def test_intervals_are_grouped_by_image() -> None:
    """Equal answers to the questions of an image: as many independent facts as images, so a wider interval."""
    said = Said({str(n): "yes" if n % 10 < 5 else "no" for n in range(200)})
    task = Answers(resamples=400)
    (alone,) = task.evaluate(said, asked(200, 200))
    (grouped,) = task.evaluate(said, asked(200, 10))
    assert (alone.groups, grouped.groups) == (0, 10)
    assert alone.metrics["closed_accuracy"] == grouped.metrics["closed_accuracy"] == 0.5
    widths = [high - low for low, high in (alone.intervals["accuracy"], grouped.intervals["accuracy"])]
    assert widths[1] > 3 * widths[0]  # sqrt(20) in theory
    patients = [
        Sample(
            one.id, one.image, one.text, one.domain, None, "test", extra={**one.extra, "group": str(int(one.id) % 4)}
        )
        for one in asked(200, 10)
    ]
    assert task.evaluate(said, patients)[0].groups == 4


def test_question_types() -> None:
    task = Answers()
    assert task.question_type(question("a", "CT", "vqa/ct", choices=OPTIONS, answer_type="CLOSED")) == "choice"
    assert task.question_type(question("a", "yes", "vqa/ct")) == "polar"
