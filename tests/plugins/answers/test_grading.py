"""Cleaning of answers as published, and the strict rule beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdkit.plugins.answers.grading import GRADERS
from kdkit.plugins.answers.replies import Reply, Tools, clean_as_published


@pytest.mark.parametrize(
    ("answer", "cleaned"),
    [
        ("Lesion<|endoftext|><|endoftext|>", "Lesion"),
        ("It is the liver.<|im_end|>\nmore", "It is the liver."),
        ("assistant\n the liver \nuser", "the liver"),
        ("first\nsecond", "first\nsecond"),
        ("liver<|im_end|>\n", "liver"),
        ("  liver ", "liver"),
    ],
)
def test_cleaning(answer: str, cleaned: str) -> None:
    assert clean_as_published(answer) == cleaned


CLOSED = "CLOSED"
BOXES = "<box>(0,0),(100,100)</box>\n and \n<box>(500,500),(900,900)</box>"


@pytest.mark.parametrize(
    ("task", "answer", "reference", "strict", "published"),
    [
        ("vqa", "Yes.\n\nThe image shows a mass.\nIt is large.", "yes", 1, 0),
        ("vqa", "Yes\n\nThere is no effusion.\n", "yes", 1, 0),
        ("vqa", "Answer:\nYes", "yes", 1, 1),
        ("vqa", "There is a mass. No effusion.", "no", 0, 1),
        ("vqa", "Left. The right lung is normal.", "right", 0, 1),
        ("vqa", "Yes.<|im_end|>\nassistant\nNo.\n", "yes", 1, 1),
        ("vqa", "1. Yes", "yes", 1, 1),
        ("vqa", "Answer: B. Left", "left", 1, 1),
        ("vqa", "Sure! Yes, it is.", "yes", 1, 1),
        ("vqa", "A. pneumonia", "A", 1, 1),
        ("vqa", "L", "L. lung", 0, 0),
        ("roc", "A liver.\n\nIt is enlarged.\n", "liver", 1, 0),
        ("roc", "the prolungation", "lung", 0, 1),
        ("vg", BOXES, BOXES, 1, 0),
        ("vg", "First:\n(0, 0), (100, 100)\nSecond:\n(500, 500), (900, 900)\n", BOXES, 1, 0),
        ("vg", '\n[\n{"bbox_2d": [0, 0, 100, 100]}\n]\n', "<box>(0,0),(100,100)</box>", 1, 1),
        ("vg", "<box>(0,0),(100,100)</box>", "<box>(0,0),(100,100)</box><box>(0,0),(100,99)</box>", 0.5, 1),
        ("rc", "a cyst\n\nin the kidney", "a cyst in the kidney", 1, 0),
        ("mia", "a cyst in the\n\nleft kidney", "a cyst in the left kidney", 1, 0),
    ],
)
def test_the_strict_rule_is_the_headline_and_the_published_one_is_beside_it(
    task: str, answer: str, reference: str, strict: float, published: float
) -> None:
    kind = CLOSED if task == "vqa" else None
    graded = GRADERS[task]([Reply.of(answer, reference, {"answer_type": kind})], Tools())
    found = (graded.outcomes["accuracy"], graded.outcomes["accuracy_published"])
    assert [float(values[0]) for values in found] == pytest.approx([strict, published], abs=1e-2)


def test_figures_of_papers_keep_the_published_rule() -> None:
    replies = [Reply.of("a cyst\nin the\nkidney", "a cyst in the kidney"), Reply.of("a mass", "a mass")]
    graded = GRADERS["mia"](replies, Tools())
    same = GRADERS["mia"]([Reply.of("in the", "a cyst in the kidney"), replies[1]], Tools())
    once = np.ones((2, 1))
    assert graded.others["mbmr_lite"](once)[0] > same.others["mbmr_lite"](once)[0]
    assert graded.others["mbmr_lite_published"](once) == same.others["mbmr_lite"](once)


texts = st.lists(
    st.sampled_from(["yes", "no", "left", "a cyst", "A", "1", "B.", "T. gondii", "\n", ". ", " ", ":\n", "! "]),
    max_size=9,
).map("".join)


@given(texts.filter(lambda text: any(letter.isalpha() for letter in text)), st.sampled_from(["vqa", "roc", "rc"]))
def test_an_answer_that_equals_its_reference_is_right(text: str, task: str) -> None:
    for kind in (CLOSED, "OPEN", None):
        graded = GRADERS[task]([Reply.of(text, text, {"answer_type": kind})], Tools())
        assert float(graded.outcomes["accuracy"][0]) == pytest.approx(1), kind
