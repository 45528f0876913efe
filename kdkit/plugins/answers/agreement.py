"""How alike answers to one question are, without a reference: what the best of several is chosen by.

The answer that agrees most with the others has the least expected error under the answers as a sample of the truth
(minimum Bayes risk decoding; Kumar and Byrne, HLT-NAACL 2004). For boxes it is the medoid by IoU. For answers that are
equal or not it is a vote (self-consistency; Wang et al., ICLR 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kdkit.plugins.answers.boxes.scoring import score_boxes
from kdkit.plugins.answers.questions import first_sentence, normal_words, recall_and_f1
from kdkit.plugins.answers.text.overlap import rouge_l
from kdkit.plugins.answers.text.tokens import words_of

Array = np.ndarray[Any, Any]
Alike = Callable[[str, str], float]
CLOSED = "closed"
"""Beside the tasks: a closed question of ``vqa``."""


def agreement(kind: str, answers: Sequence[str]) -> Array:
    """(n, n) how alike two of ``answers`` are, symmetric, in [0, 1].

    Boxes (``vg``): overlap of the best one-to-one pairs, divided by the larger number of boxes; an answer without a box
    is like no other, and not like itself. Closed questions: whether both choose the same. Names and open questions:
    F1 of their words. Other texts: ROUGE-L, the mean of both directions.

    Args:
        kind: a task, or :data:`CLOSED`.
    """
    alike, places = ALIKE[kind], {text: place for place, text in enumerate(dict.fromkeys(answers))}
    distinct = list(places)
    table = np.zeros((len(distinct), len(distinct)))
    for row, first in enumerate(distinct):
        for column in range(row + 1):
            table[row, column] = table[column, row] = alike(first, distinct[column])
    chosen = [places[text] for text in answers]
    return np.asarray(table[np.ix_(chosen, chosen)])


def _boxes(first: str, second: str) -> float:
    return score_boxes(first, second).alike


def _choices(first: str, second: str) -> float:
    return float(_choice(first) == _choice(second))


def _choice(answer: str) -> list[str]:
    """The first *yes* or *no* of the first sentence, else all its words."""
    words = normal_words(first_sentence(answer))
    return next(([word] for word in words if word in ("yes", "no")), words)


def _words(first: str, second: str) -> float:
    return 1.0 if first == second else recall_and_f1(first, second)[1]


def _texts(first: str, second: str) -> float:
    one, other = words_of(first), words_of(second)
    return (rouge_l(one, other) + rouge_l(other, one)) / 2


ALIKE: Mapping[str, Alike] = {
    "vg": _boxes,
    "roc": _words,
    "rc": _texts,
    "mia": _texts,
    "vqa": _words,
    CLOSED: _choices,
}
