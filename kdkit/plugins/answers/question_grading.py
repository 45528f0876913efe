"""Grading of questions with short answers: open, closed, and multiple choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from kdkit.core.evaluation.metrics import Metric
from kdkit.plugins.answers.choices import chosen_option, most_similar_option, referred_option
from kdkit.plugins.answers.questions import (
    closed_legacy,
    closed_right,
    closed_strictly,
    exact,
    is_closed,
    legacy_f1,
    legacy_recall,
    recall_and_f1,
)
from kdkit.plugins.answers.replies import HEADLINE, PUBLISHED, Array, Graded, Reply, Tools, numbers, share
from kdkit.plugins.answers.text.clef_bleu import clef_bleu

OPEN, CLOSED, CHOICE = 0, 1, 2
"""Strata: the bootstrap draws each kind of question among its own."""


def grade_questions(replies: Sequence[Reply], tools: Tools) -> Graded:  # noqa: ARG001  # uniform signature
    """Visual question answering. ``accuracy``: token recall of a whole open answer; whether the first sentence of a
    closed one is right; whether the answer names the right option. Of several references the best one counts."""
    kinds = np.array([_kind(reply) for reply in replies], dtype=np.int64)
    strict, published = np.zeros(len(replies)), np.zeros(len(replies))
    others: dict[str, Metric] = {}
    if (kinds != CHOICE).any():
        others["exact_match"] = _mean(replies, kinds != CHOICE, exact)
    for kind, grade in ((OPEN, _grade_open), (CLOSED, _grade_closed), (CHOICE, _grade_choices)):
        own = kinds == kind
        if own.any():
            grade(replies, own, strict, published, others)
    return Graded({HEADLINE: strict, PUBLISHED: published}, others, kinds)


def _kind(reply: Reply) -> int:
    if reply.choices:
        return CHOICE
    return CLOSED if is_closed(reply.reference, reply.answer_type) else OPEN


def _grade_open(
    replies: Sequence[Reply], own: Array, strict: Array, published: Array, others: dict[str, Metric]
) -> None:
    def f1(answer: str, reference: str) -> float:
        return recall_and_f1(answer, reference)[1]

    strict[own] = _best(replies, own, _recall)
    published[own] = _best(replies, own, _recall, cleaned=True)
    others["open_recall"] = share(np.where(own, strict, 0.0), own.astype(np.float64))
    for name, rule in (
        ("open_f1", f1),
        ("open_exact", exact),
        ("open_bleu", clef_bleu),
        ("open_recall_legacy", legacy_recall),
        ("open_f1_legacy", legacy_f1),
    ):
        others[name] = _mean(replies, own, rule)


def _grade_closed(
    replies: Sequence[Reply], own: Array, strict: Array, published: Array, others: dict[str, Metric]
) -> None:
    strict[own] = _best(replies, own, closed_strictly)
    published[own] = _best(replies, own, closed_right, cleaned=True)
    legacy = [closed_legacy(r.answer, r.reference) if mine else None for r, mine in zip(replies, own, strict=True)]
    others["closed_accuracy"] = share(np.where(own, strict, 0.0), own.astype(np.float64))
    others["closed_accuracy_legacy"] = share(
        numbers(value is True for value in legacy), numbers(value is not None for value in legacy)
    )


def _grade_choices(
    replies: Sequence[Reply], own: Array, strict: Array, published: Array, others: dict[str, Metric]
) -> None:
    for row, (reply, mine) in enumerate(zip(replies, own, strict=True)):
        if not mine:
            continue
        right = referred_option(reply.reference, reply.choices)
        if right is not None:
            strict[row] = chosen_option(reply.answer, reply.choices) == right
            published[row] = most_similar_option(reply.published, reply.choices) == right
    whole = own.astype(np.float64)
    others["choice_accuracy"] = share(np.where(own, strict, 0.0), whole)
    others["choice_accuracy_published"] = share(np.where(own, published, 0.0), whole)


def _recall(answer: str, reference: str) -> float:
    return recall_and_f1(answer, reference)[0]


def _best(replies: Sequence[Reply], own: Array, rule: Callable[[str, str], float], *, cleaned: bool = False) -> Array:
    """(n,) of the replies in ``own``: the rule's best value over the references."""
    found = (reply for reply, mine in zip(replies, own, strict=True) if mine)
    return numbers(
        max(rule(reply.published if cleaned else reply.answer, reference) for reference in reply.references)
        for reply in found
    )


def _mean(replies: Sequence[Reply], own: Array, rule: Callable[[str, str], float]) -> Metric:
    values = np.zeros(len(replies))
    values[own] = _best(replies, own, rule)
    return share(values, own.astype(np.float64))
