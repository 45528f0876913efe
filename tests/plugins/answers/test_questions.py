"""Class names, open and closed questions: the published rules with their quirks beside the strict ones."""

from __future__ import annotations

import pytest

from kdkit.plugins.answers.questions import (
    closed_legacy,
    closed_right,
    exact,
    is_closed,
    legacy_f1,
    legacy_recall,
    names_published,
    names_strictly,
    recall_and_f1,
)


def test_class_names() -> None:
    assert names_published("The prolungation", "lung")
    assert not names_strictly("The prolungation", "lung")
    assert names_published("kidney, left side", "left kidney")
    assert not names_strictly("kidney, left side", "left kidney")
    assert names_published("It is the Left Kidney.", "left kidney")
    assert names_strictly("It is the Left Kidney.", "left kidney")
    assert not names_published("the kidney", "left kidney")
    assert not names_strictly("anything", "")


def test_open_answers() -> None:
    assert recall_and_f1("the left upper lobe", "left lobe") == pytest.approx((1.0, 0.8))
    assert recall_and_f1("", "left lobe") == (0.0, 0.0)
    assert recall_and_f1("two lesions", "2 lesions") == (1.0, 1.0)
    assert recall_and_f1("lung", "lung lung")[0] == 0.5
    assert legacy_recall("lung lung lung", "lung heart") == 0.75
    assert recall_and_f1("lung lung lung", "lung heart")[0] == 0.5
    assert legacy_f1("lung lung lung", "lung heart") == pytest.approx(6 / 7)  # PathVQA's script: tp 3, fp 0, fn 1
    assert legacy_f1("kidney", "lung") == 0.0
    assert exact("The left lobe.", "left lobe")
    assert not exact("left lobe of the lung", "left lobe")


def test_closed_answers() -> None:
    assert is_closed("anything", "CLOSED")
    assert not is_closed("yes", "OPEN")
    assert is_closed("Yes", None)
    assert not is_closed("left", None)
    assert closed_right("Yes, there is.", "yes")
    assert not closed_right("Normal.", "no")
    assert closed_right("No, yes would be wrong", "No")
    assert closed_right("on the left side", "Left")
    assert not closed_right("", "yes")


def test_the_legacy_rule_does_not_count_some_wrong_answers() -> None:
    """Three doubtful answers: one right, one that says nothing, one wrong. It divides by 2."""
    told = [closed_legacy(*pair) for pair in (("yes", "yes"), ("maybe", "yes"), ("no", "yes"))]
    assert told == [True, False, None]
    assert closed_legacy("normal", "no") is True
