"""Short answers: class names (ROC), and open and closed questions of VQA-RAD and SLAKE."""

from __future__ import annotations

import re
from collections import Counter

_WORD = re.compile(r"[^\W_]+")
_SENTENCE_END = re.compile(r"(?<!\b\w)(?<!\b\d\d)\.(?=\s|$)|[!?](?=\s|$)|[。！？]|(?<![:\s])\s*\n")
"""A full stop after a single letter or a number is that of a list mark, a choice or a genus."""
_POLAR = (["yes"], ["no"])
_ARTICLES = frozenset(("a", "an", "the"))
_SPOKEN = "zero one two three four five six seven eight nine ten"
_NUMBERS = {word: str(number) for number, word in enumerate(_SPOKEN.split())}


def plain_words(text: str) -> list[str]:
    """Lower-case words and numbers; punctuation separates."""
    return _WORD.findall(text.lower())


def normal_words(text: str) -> list[str]:
    """:func:`plain_words` without articles and with digits for numbers up to ten, as in VQA scoring."""
    return [_NUMBERS.get(word, word) for word in plain_words(text) if word not in _ARTICLES]


def names_published(answer: str, reference: str) -> bool:
    """ROC as published (BiRD's ``eval_RO``): every word of the reference is a substring of the answer.

    ``lung`` is found in ``prolungation``, and the order of words does not matter.
    """
    answer = answer.lower()
    return all(word in answer for word in reference.lower().split(" "))


def names_strictly(answer: str, reference: str) -> bool:
    """ROC: the reference's words occur in the answer, whole, in order and together."""
    return contains(plain_words(answer), plain_words(reference))


def contains(words: list[str], wanted: list[str]) -> bool:
    """Whether ``wanted`` is a run of ``words``; nothing contains an empty one."""
    size = len(wanted)
    return size > 0 and any(words[start : start + size] == wanted for start in range(len(words) - size + 1))


def recall_and_f1(answer: str, reference: str) -> tuple[float, float]:
    """Share of the reference's words that the answer has (each as often as it occurs), and F1 with its precision."""
    answered, wanted = map(Counter, _compared(answer, reference))
    shared = (answered & wanted).total()
    if not shared:
        return 0.0, 0.0
    return shared / wanted.total(), 2 * shared / (answered.total() + wanted.total())


def legacy_recall(answer: str, reference: str) -> float:
    """Recall as in LLaVA-Med's ``calculate_f1score``: a shared word counts as often as the *answer* has it."""
    answered, wanted = Counter(normal_words(answer)), Counter(normal_words(reference))
    shared = sum(count for word, count in answered.items() if word in wanted)
    missed = sum(count for word, count in wanted.items() if word not in answered)
    return shared / (shared + missed) if shared else 0.0


def legacy_f1(answer: str, reference: str) -> float:
    """F1 of PathVQA's and LLaVA-Med's ``calculate_f1score``: :func:`legacy_recall`, and the share of the answer's words
    that the reference has, however often."""
    answered, wanted = Counter(normal_words(answer)), Counter(normal_words(reference))
    shared = sum(count for word, count in answered.items() if word in wanted)
    if not shared:
        return 0.0
    precision, recall = shared / answered.total(), legacy_recall(answer, reference)
    return 2 * precision * recall / (precision + recall)


def exact(answer: str, reference: str) -> bool:
    """The same words in the same order."""
    return normal_words(answer) == normal_words(reference)


def is_closed(reference: str, answer_type: str | None) -> bool:
    """By the data set's ``answer_type`` (OPEN, CLOSED); without one, closed questions have yes or no as answer."""
    if answer_type is not None:
        return answer_type.strip().upper() == "CLOSED"
    return normal_words(reference) in _POLAR


def question_type(reference: str, answer_type: str | None, *, choices: bool = False) -> str:
    """``polar`` (yes or no), ``closed``, ``open``, or ``choice`` for a question with options."""
    if choices:
        return "choice"
    if not is_closed(reference, answer_type):
        return "open"
    return "polar" if normal_words(first_sentence(reference)) in _POLAR else "closed"


def first_sentence(text: str) -> str:
    """The first sentence or line that has a word; a line that ends with a colon continues.

    Example:
        >>> first_sentence("Answer:\\nB. Yes. There is no effusion.")
        'Answer:\\nB. Yes'
    """
    return next((part for part in _SENTENCE_END.split(text) if _WORD.search(part)), text)


def closed_strictly(answer: str, reference: str) -> bool:
    """A closed question by the first sentence of the answer; an answer that equals the reference is right.

    If the reference begins with yes or no, one other word before the answer (``Sure!``) is no sentence.
    """
    if plain_words(answer) == plain_words(reference):
        return True
    polar = first_sentence(reference)
    if normal_words(polar) not in _POLAR:
        return closed_right(first_sentence(answer), reference)
    sentence = first_sentence(answer)
    if len(words := normal_words(sentence)) == 1 and words not in _POLAR:
        sentence = first_sentence(answer[answer.index(sentence) + len(sentence) + 1 :])
    return closed_right(sentence, polar)


def closed_right(answer: str, reference: str) -> bool:
    """A closed question: the first *yes* or *no* of the answer is the reference; another choice occurs in it whole."""
    answered, wanted = _compared(answer, reference)
    if wanted in _POLAR:
        return next((word for word in answered if word in ("yes", "no")), None) == wanted[0]
    return contains(answered, wanted)


def _compared(answer: str, reference: str) -> tuple[list[str], list[str]]:
    """Words of both; articles count where the reference has nothing else, such as the choice ``A``."""
    words = normal_words if normal_words(reference) else plain_words
    return words(answer), words(reference)


def closed_legacy(answer: str, reference: str) -> bool | None:
    """As LLaVA-Med's ``run_eval.py``; None for answers that it does not count, which makes its denominator too small.

    It searches substrings, so ``no`` is found in ``normal``. An answer with *yes* or *no* but without the reference is
    not counted.
    """
    answered, wanted = " ".join(normal_words(answer)), " ".join(normal_words(reference))
    if "yes" in answered or "no" in answered:
        return True if wanted in answered else None
    return False
