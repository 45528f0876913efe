"""Grading of one domain's answers, for each task: outcomes per sample and metrics over all.

Two rules: the strict one (``accuracy``) reads the whole answer, or the part of it that the task states; the published
one (``accuracy_published``, ``recall``, ``mbmr_published``) cleans and matches answers as BiRD's scripts do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kdkit.core.evaluation.metrics import Metric
from kdkit.plugins.answers.boxes.scoring import score_boxes
from kdkit.plugins.answers.question_grading import grade_questions
from kdkit.plugins.answers.questions import names_published, names_strictly
from kdkit.plugins.answers.replies import (
    HEADLINE,
    PUBLISHED,
    SIMILARITY,
    Array,
    Graded,
    Reply,
    Tools,
    numbers,
    one_stratum,
    share,
)
from kdkit.plugins.answers.text.meteor import Meteor, MeteorLite
from kdkit.plugins.answers.text.overlap import ORDER, bleu, bleu_counts, cider, rouge_l
from kdkit.plugins.answers.text.spice import Spice
from kdkit.plugins.answers.text.tokens import words_of


def grade_boxes(replies: Sequence[Reply], tools: Tools) -> Graded:
    """Visual grounding; every reference has a box. ``accuracy``: share of boxes found, one to one, in the whole answer;
    ``similarity``: overlap of the boxes with the reference's, one to one."""
    hits = [score_boxes(r.answer, r.reference, tools.overlap, published=_published_boxes(r)) for r in replies]
    targets, found, published, strict, overlap, alike = (
        np.array([getattr(hit, name) for hit in hits], dtype=np.float64)
        for name in ("targets", "found", "published", "strict", "overlap", "alike")
    )
    others = {
        "recall": share(published, targets),
        "recall_strict": share(strict, targets),
        "precision_strict": share(strict, found),
        "mean_iou": share(overlap, targets),
    }
    outcomes = {HEADLINE: strict / targets, PUBLISHED: published / targets, SIMILARITY: alike}
    return Graded(outcomes, others, one_stratum(replies))


def grade_names(replies: Sequence[Reply], tools: Tools) -> Graded:  # noqa: ARG001  # uniform signature
    """Referring object classification. ``accuracy``: the whole answer has the name in whole words."""
    published = numbers(names_published(r.published, r.reference) for r in replies)
    strict = numbers(names_strictly(r.answer, r.reference) for r in replies)
    outcomes = {HEADLINE: strict, PUBLISHED: published, "recall": published, "recall_strict": strict}
    return Graded(outcomes, {}, one_stratum(replies))


def grade_captions(replies: Sequence[Reply], tools: Tools) -> Graded:
    """Referring captioning. ``accuracy`` is SPICE if configured, else ROUGE-L; a note names it."""
    texts, published = _by_both_rules(replies, tools, tools.spice)
    name = "rouge_l" if tools.spice is None else "spice"
    outcomes = {HEADLINE: texts.outcomes[name], PUBLISHED: published.outcomes[name], **texts.outcomes}
    notes = (
        ("accuracy is ROUGE-L", "SPICE: unavailable (option corenlp)")
        if tools.spice is None
        else ("accuracy is SPICE",)
    )
    return Graded(outcomes, texts.others, one_stratum(replies), notes)


def grade_descriptions(replies: Sequence[Reply], tools: Tools) -> Graded:
    """Medical image analysis. ``accuracy`` is the mean of the six metrics of mBMR on the sample alone."""
    texts, published = _by_both_rules(replies, tools, None)
    outcomes = {HEADLINE: texts.single, PUBLISHED: published.single, **texts.outcomes}
    notes = (f"accuracy is BLEU-1 to 4, {tools.meteor.name} and ROUGE-L of single answers",)
    return Graded(outcomes, texts.others, one_stratum(replies), notes)


GRADERS: Mapping[str, Callable[[Sequence[Reply], Tools], Graded]] = {
    "vg": grade_boxes,
    "roc": grade_names,
    "rc": grade_captions,
    "mia": grade_descriptions,
    "vqa": grade_questions,
}


class _Texts(NamedTuple):
    """Outcomes, other metrics, and (N,) the mean of the six metrics of mBMR on each answer alone."""

    outcomes: dict[str, Array]
    others: dict[str, Metric]
    single: Array


def _by_both_rules(replies: Sequence[Reply], tools: Tools, spice: Spice | None) -> tuple[_Texts, _Texts]:
    """Scores by the strict and by the published rule; the first also has the published mBMR."""
    answers, cleaned = [r.answer for r in replies], [r.published for r in replies]
    references = [r.reference for r in replies]
    strict = _texts(answers, references, tools.meteor, spice)
    published = strict if cleaned == answers else _texts(cleaned, references, tools.meteor, spice)
    mbmr = next(iter(strict.others))
    return strict._replace(others={**strict.others, f"{mbmr}_published": published.others[mbmr]}), published


def _texts(texts: Sequence[str], wanted: Sequence[str], which: Meteor, spice: Spice | None) -> _Texts:
    """BLEU and METEOR are corpus metrics, ROUGE-L and CIDEr are means; mBMR, the first of the others, is as in BiRD's
    tables."""
    answers, references = [words_of(text) for text in texts], [words_of(text) for text in wanted]
    rouge = np.array([rouge_l(a, r) for a, r in zip(answers, references, strict=True)])
    grams, matches = bleu_counts(answers, references), which.counts(answers, references)
    lite = "_lite" if which.name == MeteorLite.name else ""

    def bleus(counts: Array) -> Array:
        return bleu(np.asarray(counts, dtype=np.float64).T @ grams)

    def meteor(counts: Array) -> Array:
        return which.score(np.asarray(counts, dtype=np.float64).T @ matches)

    def mbmr(counts: Array) -> Array:
        mean_rouge = rouge @ counts / counts.sum(axis=0)
        return np.asarray((bleus(counts).sum(axis=1) + meteor(counts) + mean_rouge) / (ORDER + 2))

    def order(n: int) -> Metric:
        return lambda counts: np.asarray(bleus(counts)[:, n])

    others: dict[str, Metric] = {f"mbmr{lite}": mbmr, f"meteor{lite}": meteor}
    others |= {f"bleu_{n + 1}": order(n) for n in range(ORDER)}
    outcomes = {"rouge_l": rouge, "cider": np.array(cider(answers, references))}
    if spice is not None:
        outcomes["spice"] = spice.scores(texts, wanted)
    return _Texts(outcomes, others, (bleu(grams).sum(axis=1) + which.score(matches) + rouge) / (ORDER + 2))


def _published_boxes(reply: Reply) -> str:
    """The whole answer if it has JSON boxes: the published cleaning would cut JSON of several lines."""
    return reply.answer if '"bbox_2d"' in reply.answer else reply.published
