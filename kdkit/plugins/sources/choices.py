"""Questions with options: their text, and the option that is right."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import IMAGE_MARK
from kdkit.plugins.answers.choices import LETTERS, referred_option
from kdkit.plugins.answers.replies import CHOICES
from kdkit.plugins.sources.questions import Question

Wording = Literal["text", "letter"]
"""What the reference is: the option's text, as published, or its letter."""
ASKED: dict[Wording, str] = {
    "text": "Answer with the text of one of these options.",
    "letter": "Answer with the letter of one of these options.",
}
_LABEL = re.compile(r"^\s*([A-J])\s*[:.)]\s*")


def choice_question(
    *,
    id: str,
    image: Path,
    question: str,
    options: Sequence[str],
    answer: str,
    wording: Wording,
    where: str,
    letter: str = "",
    **fields: Any,
) -> Question:
    """A question whose options follow it, one a line: ``A. text``.

    Args:
        options: their texts, with or without letters (``A:text``), which are removed.
        answer: the text of an option, or its letter.
        letter: that of the right option, if the file states it; so an option called ``A`` is not taken for the first.
        fields: further ones of :class:`Question`: ``modality``, ``extra``.

    Raises:
        KdkitError: fewer than two options, an empty one, an answer that is none, or that has another letter.
    """
    texts = _texts(options, where)
    if not 2 <= len(texts) <= len(LETTERS):
        raise _wrong(f"a question needs 2 to {len(LETTERS)} options, not {len(texts)}", where, f"{texts}")
    right = _right_option(answer, letter, texts, where)
    listed = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False))
    extra = {"answer_type": "CLOSED", CHOICES: texts, **fields.pop("extra", {})}
    return Question(
        id=id,
        images=[image],
        messages=[("user", f"{IMAGE_MARK}\n{question}\n{listed}\n{ASKED[wording]}")],
        answer=LETTERS[right] if wording == "letter" else texts[right],
        task="vqa",
        extra=extra,
        **fields,
    )


def check_wording(wording: str, where: str) -> Wording:
    """``wording`` itself. Raises: KdkitError: it is another."""
    for known in ASKED:
        if wording == known:
            return known
    fix = "set answers: text, or letter"
    raise KdkitError("KD-SRC-570", f"there is no wording '{wording}' of answers", where=where, fix=fix)


def _right_option(answer: str, letter: str, texts: Sequence[str], where: str) -> int:
    named = referred_option(answer, texts)
    if named is None:
        named = referred_option(_LABEL.sub("", answer), texts)
    place = LETTERS.find(letter) if letter else -1
    if letter and not 0 <= place < len(texts):
        raise _wrong(f"there is no option {letter}", where, f"{texts}")
    if letter and (answer == letter or named is None):
        return place
    if named is None:
        raise _wrong("the answer is none of the options", where, f"{answer!r} is not in {texts}")
    if letter and texts[named] != texts[place]:
        raise _wrong(f"the answer is option {LETTERS[named]}, but its letter is {letter}", where, f"{texts}")
    return named


def _texts(options: Sequence[str], where: str) -> list[str]:
    """The options without their letters, if each begins with that of its place: ``A. fumigatus`` may be a name."""
    marks = [_LABEL.match(option) for option in options]
    bare = [_LABEL.sub("", option).strip() for option in options]
    lettered = all(mark is not None and mark[1] == letter for mark, letter in zip(marks, LETTERS, strict=False))
    texts = bare if lettered and any(bare) else [option.strip() for option in options]
    if "" in texts:
        raise _wrong(f"option {LETTERS[texts.index('')]} is empty", where, f"{texts}")
    return texts


def _wrong(what: str, where: str, why: str) -> KdkitError:
    fix = "correct the record, or skip such records with the option skip_broken: true"
    return KdkitError("KD-SRC-571", what, where=where, why=why, fix=fix)
