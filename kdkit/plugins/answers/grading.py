"""Grading of one domain's answers, for each task: outcomes per sample and metrics over all.

Two rules: the strict one (``accuracy``) reads the whole answer, or the part of it that the task states; the published
one (``accuracy_published``, ``recall``, ``mbmr_published``) cleans and matches answers as BiRD's scripts do.

Shapes: N samples, R bootstrap resamples. A metric maps ``counts`` (N, R), the number of draws of each sample, to (R,).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from kdkit.core.evaluation.metrics import Metric
from kdkit.plugins.answers.boxes.scoring import THRESHOLD, score_boxes
from kdkit.plugins.answers.questions import (
    closed_legacy,
    closed_right,
    closed_strictly,
    exact,
    is_closed,
    legacy_recall,
    names_published,
    names_strictly,
    recall_and_f1,
)
from kdkit.plugins.answers.text.meteor import Meteor, MeteorLite
from kdkit.plugins.answers.text.overlap import ORDER, bleu, bleu_counts, cider, rouge_l
from kdkit.plugins.answers.text.spice import Spice
from kdkit.plugins.answers.text.tokens import words_of

Array = np.ndarray[Any, Any]
HEADLINE = "accuracy"
"""The metric of trust, retention and the guard."""
SIMILARITY = "similarity"
"""The metric of corrections, for tasks with a binary headline."""

PUBLISHED = "accuracy_published"
"""The headline by the published rule."""

_BETWEEN_LINES = re.compile(r"\n(.*?)\n", re.DOTALL)
_END = re.compile(r"<\|im_end\|>|<\|endoftext\|>")


@dataclass(frozen=True)
class Tools:
    """Settings of the graders.

    Attributes:
        meteor: the METEOR to report.
        spice: None: SPICE is not reported.
        overlap: IoU above which a box is found.
    """

    meteor: Meteor = field(default_factory=MeteorLite)
    spice: Spice | None = None
    overlap: float = THRESHOLD


@dataclass(frozen=True)
class Graded:
    """The scores of N answers.

    Attributes:
        outcomes: metric that is a mean over samples -> (N,) in [0, 1]; ``accuracy`` is the first.
        others: any other metric -> function of counts.
        strata: (N,) classes of the stratified bootstrap.
        notes: for readers of the score.
    """

    outcomes: Mapping[str, Array]
    others: Mapping[str, Metric]
    strata: Array
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reply:
    """One answer with its reference: ``answer`` up to its end token, ``published`` as BiRD cleans it."""

    answer: str
    reference: str
    published: str
    answer_type: str | None = None

    @classmethod
    def of(cls, answer: str, reference: str, answer_type: str | None = None) -> Reply:
        return cls(
            _END.split(answer, maxsplit=1)[0].strip(), reference.strip(), clean_as_published(answer), answer_type
        )


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
    return Graded(outcomes, others, _one_stratum(replies))


def grade_names(replies: Sequence[Reply], tools: Tools) -> Graded:  # noqa: ARG001  # uniform signature
    """Referring object classification. ``accuracy``: the whole answer has the name in whole words."""
    published = _numbers(names_published(r.published, r.reference) for r in replies)
    strict = _numbers(names_strictly(r.answer, r.reference) for r in replies)
    outcomes = {HEADLINE: strict, PUBLISHED: published, "recall": published, "recall_strict": strict}
    return Graded(outcomes, {}, _one_stratum(replies))


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
    return Graded(outcomes, texts.others, _one_stratum(replies), notes)


def grade_descriptions(replies: Sequence[Reply], tools: Tools) -> Graded:
    """Medical image analysis. ``accuracy`` is the mean of the six metrics of mBMR on the sample alone."""
    texts, published = _by_both_rules(replies, tools, None)
    outcomes = {HEADLINE: texts.single, PUBLISHED: published.single, **texts.outcomes}
    notes = (f"accuracy is BLEU-1 to 4, {tools.meteor.name} and ROUGE-L of single answers",)
    return Graded(outcomes, texts.others, _one_stratum(replies), notes)


def grade_questions(replies: Sequence[Reply], tools: Tools) -> Graded:  # noqa: ARG001  # uniform signature
    """Visual question answering. ``accuracy``: token recall of a whole open answer, or whether the first sentence of a
    closed one is right."""
    closed = np.array([is_closed(r.reference, r.answer_type) for r in replies])
    scores = [recall_and_f1(r.answer, r.reference) for r in replies]
    right = _numbers(closed_strictly(r.answer, r.reference) for r in replies)
    recall = np.array([recall for recall, _ in scores])
    published = _numbers(
        closed_right(r.published, r.reference) if c else recall_and_f1(r.published, r.reference)[0]
        for r, c in zip(replies, closed, strict=True)
    )
    others: dict[str, Metric] = {}
    if not closed.all():
        is_open = (~closed).astype(np.float64)
        others["open_recall"] = share(recall * is_open, is_open)
        others["open_f1"] = share(np.array([f1 for _, f1 in scores]) * is_open, is_open)
        others["open_exact"] = share(_numbers(exact(r.answer, r.reference) for r in replies) * is_open, is_open)
        legacy = np.array([legacy_recall(r.answer, r.reference) for r in replies])
        others["open_recall_legacy"] = share(legacy * is_open, is_open)
    if closed.any():
        legacy_closed = [
            closed_legacy(r.answer, r.reference) if c else None for r, c in zip(replies, closed, strict=True)
        ]
        others["closed_accuracy"] = share(right * closed, closed.astype(np.float64))
        others["closed_accuracy_legacy"] = share(
            _numbers(value is True for value in legacy_closed), _numbers(value is not None for value in legacy_closed)
        )
    outcomes = {HEADLINE: np.where(closed, right, recall), PUBLISHED: published}
    return Graded(outcomes, others, closed.astype(np.int64))


def clean_as_published(answer: str) -> str:
    """An answer as cleaned by BiRD's ``extract_information`` (ShawnHuang497/BiRD at b588ecb).

    It cuts everything after the full stop of ``.<|im_end|>``, keeps the text between the first two line breaks if there
    are two, and strips white space.
    """
    head, cut, _ = answer.partition(".<|im_end|>")
    answer = (head + "." if cut else answer).replace("<|im_end|>\n", "")
    between = _BETWEEN_LINES.search(answer)
    if between:
        answer = between.group(1)
    return answer.replace("<|endoftext|>", "").strip()


GRADERS: Mapping[str, Callable[[Sequence[Reply], Tools], Graded]] = {
    "vg": grade_boxes,
    "roc": grade_names,
    "rc": grade_captions,
    "mia": grade_descriptions,
    "vqa": grade_questions,
}


def share(part: Array, whole: Array) -> Metric:
    """Sum of ``part`` over sum of ``whole``, 0 where that is 0."""

    def metric(counts: Array) -> Array:
        above, below = part @ counts, whole @ counts
        return np.asarray(np.divide(above, below, out=np.zeros_like(above, dtype=np.float64), where=below > 0))

    return metric


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


def _numbers(values: Any) -> Array:
    return np.array([float(value) for value in values])


def _one_stratum(replies: Sequence[Reply]) -> Array:
    return np.zeros(len(replies), dtype=np.int64)
