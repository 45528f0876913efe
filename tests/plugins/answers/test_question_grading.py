"""Open, closed and multiple choice questions in one domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest

from kdkit.core.contracts import Sample
from kdkit.plugins.answers.question_grading import grade_questions
from kdkit.plugins.answers.replies import Reply, Tools
from kdkit.plugins.answers.task import Answers
from tests.errors import raises_error
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


class Likely(Said):
    """A model for which a text is as likely as a table says, token by token; a letter a token."""

    def log_likelihoods(self, samples: Sequence[Sample]) -> list[list[float]]:
        return [[self.table[sample.text]] * (len(sample.text) + 1) for sample in samples]

    table: ClassVar = {"CT": -1.0, "MRI": -0.9, "Ultrasound": -0.8, "A": -2.0, "B": -1.0, "C": -3.0}


def test_options_by_likelihood() -> None:
    """Sums: CT -3, MRI -3.6, Ultrasound -8.8; means: -1, -0.9, -0.8."""
    texts = ("CT", "Ultrasound", "B", "not an option")
    asked = [question(f"q{n}", text, "vqa/ct", choices=OPTIONS) for n, text in enumerate(texts)]
    both = [*asked, question("open", "the left lobe", "vqa/ct")]

    def found(wording: str, model: Said) -> dict[str, float]:
        (score,) = Answers(resamples=20, likelihood=wording).evaluate(model, both)
        return {name: value for name, value in score.metrics.items() if "likelihood" in name}

    assert found("text", Likely({})) == {"choice_likelihood": 1 / 4, "choice_likelihood_mean": 1 / 4}
    assert found("letter", Likely({})) == {"choice_likelihood": 1 / 4, "choice_likelihood_mean": 1 / 4}
    assert found("text", Likely({})) != found("letter", Said({})) == {}
    assert found("", Likely({})) == {}
    (lacking,) = Answers(resamples=20, likelihood="text").evaluate(Said({}, "kept"), both)
    assert [note for note in lacking.notes if note.startswith("kept cannot tell")]
    with raises_error("KD-ANS-613", mentions=("letter",)):
        Answers(likelihood="letters")


def test_equal_options_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets have questions with an option twice, whose likelihoods differ in the last digits."""
    monkeypatch.setitem(Likely.table, "CT", -0.1)
    twice = [question("q", "CT", "vqa/ct", choices=["MRI", "CT", "CT"])]
    (score,) = Answers(resamples=20, likelihood="text").evaluate(Likely({}), twice)
    assert score.metrics["choice_likelihood"] == 1


def test_question_types() -> None:
    task = Answers()
    assert task.question_type(question("a", "CT", "vqa/ct", choices=OPTIONS, answer_type="CLOSED")) == "choice"
    assert task.question_type(question("a", "yes", "vqa/ct")) == "polar"
