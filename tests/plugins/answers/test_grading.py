"""Cleaning of answers as published."""

from __future__ import annotations

import pytest

from kdkit.plugins.answers.grading import clean


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
    assert clean(answer) == cleaned
