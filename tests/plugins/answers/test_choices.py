"""Which option an answer chooses."""

from __future__ import annotations

import pytest

from kdkit.plugins.answers.choices import chosen_option, most_similar_option, referred_option

SCANS = ("CT", "MRI", "CT with contrast", "A. fumigatus")
SIZES = ("< 5 mm", "> 5 mm")


@pytest.mark.parametrize(
    ("answer", "option"),
    [
        ("MRI", 1),
        ("mri.", 1),
        ("B", 1),
        ("(b)", 1),
        ("**B**", 1),
        ("B. MRI", 1),
        ("B MRI", 1),
        ("The correct answer is B.", 1),
        ("Answer: (B)\nBecause of the signal.", 1),
        ("It is an MRI of the head. CT would be bright.", 1),
        ("It is a CT with contrast.", 2),
        ("A. fumigatus", 3),
        ("A.", 0),
        ("A large mass", None),  # an article
        ("B. CT", None),  # a letter and the text of another option
        ("CT or MRI", None),
        ("E", None),
        ("The MRIs", None),
        ("\u0130. MRI", 1),  # a capital I with a dot is no letter of an option
        ("", None),
    ],
)
def test_the_strict_rule(answer: str, option: int | None) -> None:
    assert chosen_option(answer, SCANS) == option


def test_options_that_differ_in_signs_alone() -> None:
    assert [chosen_option(answer, SIZES) for answer in ("> 5 mm", "< 5 MM.", "5 mm", "B")] == [1, 0, None, 1]
    assert [referred_option(reference, SIZES) for reference in ("> 5 mm", "b", "5 mm", "C")] == [1, 1, None, None]


def test_an_option_that_is_there_twice() -> None:
    twice = ("CT", "MRI", "CT")
    assert [chosen_option(answer, twice) for answer in ("C", "C. CT", "A. CT", "CT", "B")] == [0, 0, 0, 0, 1]
    assert [referred_option(reference, twice) for reference in ("C", "CT", "B")] == [0, 0, 1]


def test_the_published_rule() -> None:
    """What ``find_most_similar_index`` of OmniMedVQA's ``medicalqa.py`` gave for these."""
    options = ["Diffuse uptake pattern", "Focal uptake pattern", "No uptake pattern", "Cannot be determined"]
    answers = ("focal", "B", "There is a diffuse uptake", "No", "It can not be determined", "", "§")
    assert [most_similar_option(answer, options) for answer in answers] == [1, None, 0, 2, 3, None, None]
