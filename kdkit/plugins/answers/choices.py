"""Multiple choice: which option an answer chooses, by a strict rule and by the papers' rule."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from kdkit.plugins.answers.questions import contains, first_sentence, plain_words

LETTERS = "ABCDEFGHIJ"
_LEAD = r"\W*(?:(?:the\s+)?(?:correct\s+|right\s+|best\s+)?(?:answer|option|choice)\b\s*(?:is\b|:)?\W*)*"
_MARK = re.compile(rf"^{_LEAD}((?-i:[A-Ja-j]))(?:\s*[.):,\]*]|\s*$|(?=\s))(.*)", re.I | re.S)
_BARE = re.compile(rf"^{_LEAD}[a-j]\s+\w", re.I)
"""A letter before a word without a mark between them: perhaps the article of ``A large mass``."""


def chosen_option(answer: str, options: Sequence[str]) -> int | None:
    """The option that an answer names, or None if it names none or several.

    In this order: the whole answer is an option; it begins with a letter (``B``, ``B. text``, ``Answer: (B)``)
    and does not go on with the text of another option; the first sentence has the words of one option, whole, in order
    and together. An option inside a longer one that is there too does not count. Of equal options it is the first.

    Example:
        >>> chosen_option("B. a scan", ["CT", "MRI"]), chosen_option("It is an MRI.", ["CT", "MRI"])
        (1, 1)
    """
    if (whole := _same(answer, options)) is not None:
        return whole
    named = [plain_words(option) for option in options]
    if (mark := _MARK.match(answer)) is not None:
        number, rest = LETTERS.index(mark[1].upper()), _same(mark[2], options)
        number = _first_equal(number, options)
        if number < len(options) and rest == number:
            return number
        if _BARE.match(answer) is None:
            return number if number < len(options) and rest is None else None
    words = plain_words(first_sentence(answer))
    found = [number for number, option in enumerate(named) if contains(words, option)]
    longest = [n for n in found if not any(m != n and contains(named[m], named[n]) for m in found)]
    return longest[0] if len(longest) == 1 else None


def most_similar_option(answer: str, options: Sequence[str]) -> int | None:
    """The option that is most similar to the answer by ``difflib``; of equals the first, None if nothing is alike.

    The rule of OmniMedVQA (Hu et al., CVPR 2024; ``find_most_similar_index`` of its ``medicalqa.py``) and of PMC-VQA
    (Zhang et al., 2023). A bare letter is similar to any option that has it.
    """
    ratios = [SequenceMatcher(None, option, answer).ratio() for option in options]
    best = max(ratios, default=0.0)
    return ratios.index(best) if best > 0 else None


def referred_option(reference: str, options: Sequence[str]) -> int | None:
    """The option that a reference is, by its text, else by its letter; None if it is neither."""
    if (whole := _same(reference, options)) is not None:
        return whole
    letter = reference.strip().upper()
    named = len(letter) == 1 and letter in LETTERS[: len(options)]
    return _first_equal(LETTERS.index(letter), options) if named else None


def _first_equal(number: int, options: Sequence[str]) -> int:
    """The first option that equals this one, if it exists: data sets have questions with an option twice."""
    return number if number >= len(options) else next(n for n in range(number + 1) if options[n] == options[number])


def _same(text: str, options: Sequence[str]) -> int | None:
    """The option that equals the text but for case, blanks and a full stop, else the only one of the same words."""
    plain = [" ".join(each.lower().split()).rstrip(".") for each in (text, *options)]
    if plain[0] and plain[0] in plain[1:]:
        return plain.index(plain[0], 1) - 1
    words = plain_words(text)
    found = [number for number, option in enumerate(options) if words and plain_words(option) == words]
    return found[0] if len(found) == 1 else None
