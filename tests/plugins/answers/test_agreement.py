"""How alike answers are: closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kdkit.core.contracts import ComparesAnswers, Sample
from kdkit.plugins.answers.agreement import ALIKE, CLOSED, agreement
from kdkit.plugins.answers.task import Answers


def box(x1: int, y1: int, x2: int, y2: int) -> str:
    return f"<|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>"


def test_boxes_agree_by_their_overlap() -> None:
    """Two halves of one box overlap with it by one half, and not with each other."""
    whole, left, right = box(0, 0, 100, 100), box(0, 0, 50, 100), box(50, 0, 100, 100)
    found = agreement("vg", [whole, left, right, "no box", whole + left])
    wanted = [
        [1, 0.5, 0.5, 0, 0.5],
        [0.5, 1, 0, 0, 0.5],
        [0.5, 0, 1, 0, 0.25],
        [0, 0, 0, 0, 0],
        [0.5, 0.5, 0.25, 0, 1],
    ]
    assert found == pytest.approx(np.array(wanted))


def test_closed_answers_vote() -> None:
    found = agreement(CLOSED, ["Yes.", "yes, there is", "No", "the left one"])
    assert found.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_names_agree_by_their_words() -> None:
    assert agreement("roc", ["large cyst", "a cyst", "mass"])[0].tolist() == pytest.approx([1, 2 / 3, 0])
    assert agreement("roc", ["", ""]).tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("kind", ALIKE)
def test_agreement_is_symmetric_and_of_the_texts_alone(kind: str) -> None:
    answers = ["ct showing a cyst", "ct showing a mass in the lung", "ct showing a cyst", "", box(1, 2, 30, 40)]
    found = agreement(kind, answers)
    assert np.array_equal(found, found.T)
    assert np.array_equal(found[0], found[2])
    assert ((found >= 0) & (found <= 1)).all()


def test_the_task_reads_no_reference() -> None:
    def sample(domain: str, **extra: str) -> Sample:
        return Sample("s", Path("x.png"), "yes", domain, extra=extra)

    task = Answers()
    assert isinstance(task, ComparesAnswers)
    kinds = [
        (sample("vg/ct"), False),
        (sample("vqa/ct"), True),
        (sample("vqa/ct", answer_type="CLOSED"), False),
        (sample("vqa/ct", answer_type="OPEN"), True),
        (sample("rc/ct"), True),
        (sample("unknown/ct"), True),
    ]
    for one, free in kinds:
        assert task.is_free_text(one) is free
        other = Sample(one.id, one.image, "another reference", one.domain, extra=one.extra)
        answers = ["yes", "no", "yes <|im_end|> more"]
        assert np.array_equal(task.agreement(one, answers), task.agreement(other, answers))
        assert one.domain == "vg/ct" or task.agreement(one, answers)[0, 2] == 1  # up to the end token
