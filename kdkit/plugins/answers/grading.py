"""Grading of one domain's answers, for each task: outcomes per sample and metrics over all.

Shapes: N samples, R bootstrap resamples. A metric maps ``counts`` (N, R), the number of draws of each sample, to (R,).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kdkit.core.evaluation.metrics import Metric
from kdkit.plugins.answers.boxes.scoring import THRESHOLD, score_boxes
from kdkit.plugins.answers.questions import (
    closed_legacy,
    closed_right,
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

_BETWEEN_LINES = re.compile(r"\n(.*?)\n", re.DOTALL)


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
    """One answer, cleaned, with its reference; ``raw`` is the answer before cleaning."""

    answer: str
    reference: str
    raw: str
    answer_type: str | None = None

    @classmethod
    def of(cls, answer: str, reference: str, answer_type: str | None = None) -> Reply:
        return cls(clean(answer), reference.strip(), answer, answer_type)


def grade_boxes(replies: Sequence[Reply], tools: Tools) -> Graded:
    """Visual grounding; every reference has a box. ``accuracy``: share of boxes found, by the published rule;
    ``similarity``: overlap of the boxes with the reference's, one to one."""
    hits = [score_boxes(_with_boxes(reply), reply.reference, tools.overlap) for reply in replies]
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
    return Graded({HEADLINE: published / targets, SIMILARITY: alike}, others, _one_stratum(replies))


def grade_names(replies: Sequence[Reply], tools: Tools) -> Graded:  # noqa: ARG001  # uniform signature
    """Referring object classification. ``accuracy`` is recall by the published rule."""
    published = _numbers(names_published(r.answer, r.reference) for r in replies)
    strict = _numbers(names_strictly(r.answer, r.reference) for r in replies)
    return Graded({HEADLINE: published, "recall": published, "recall_strict": strict}, {}, _one_stratum(replies))


def grade_captions(replies: Sequence[Reply], tools: Tools) -> Graded:
    """Referring captioning. ``accuracy`` is SPICE if configured, else ROUGE-L; a note names it."""
    outcomes, others, _ = _texts(replies, tools)
    if tools.spice is not None:
        spice = tools.spice.scores([r.answer for r in replies], [r.reference for r in replies])
        return Graded(
            {HEADLINE: spice, "spice": spice, **outcomes}, others, _one_stratum(replies), ("accuracy is SPICE",)
        )
    notes = ("accuracy is ROUGE-L", "SPICE: unavailable (option corenlp)")
    return Graded({HEADLINE: outcomes["rouge_l"], **outcomes}, others, _one_stratum(replies), notes)


def grade_descriptions(replies: Sequence[Reply], tools: Tools) -> Graded:
    """Medical image analysis. ``accuracy`` is the mean of the six metrics of mBMR on the sample alone."""
    outcomes, others, single = _texts(replies, tools)
    notes = (f"accuracy is BLEU-1 to 4, {tools.meteor.name} and ROUGE-L of single answers",)
    return Graded({HEADLINE: single, **outcomes}, others, _one_stratum(replies), notes)


def grade_questions(replies: Sequence[Reply], tools: Tools) -> Graded:  # noqa: ARG001  # uniform signature
    """Visual question answering. ``accuracy``: an open answer's token recall, or whether a closed one is right."""
    closed = np.array([is_closed(r.reference, r.answer_type) for r in replies])
    scores = [recall_and_f1(r.answer, r.reference) for r in replies]
    right = _numbers(closed_right(r.answer, r.reference) for r in replies)
    recall = np.array([recall for recall, _ in scores])
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
    return Graded({HEADLINE: np.where(closed, right, recall)}, others, closed.astype(np.int64))


def clean(answer: str) -> str:
    """An answer without end tokens, as by BiRD's ``extract_information`` (ShawnHuang497/BiRD at b588ecb).

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


def _texts(replies: Sequence[Reply], tools: Tools) -> tuple[dict[str, Array], dict[str, Metric], Array]:
    """Outcomes, other metrics, and (N,) the mean of the six metrics of mBMR on each answer alone.

    BLEU and METEOR are corpus metrics, ROUGE-L and CIDEr are means; mBMR is as in BiRD's tables.
    """
    answers = [words_of(reply.answer) for reply in replies]
    references = [words_of(reply.reference) for reply in replies]
    rouge = np.array([rouge_l(a, r) for a, r in zip(answers, references, strict=True)])
    grams, matches = bleu_counts(answers, references), tools.meteor.counts(answers, references)
    lite = "_lite" if tools.meteor.name == MeteorLite.name else ""

    def bleus(counts: Array) -> Array:
        return bleu(np.asarray(counts, dtype=np.float64).T @ grams)

    def meteor(counts: Array) -> Array:
        return tools.meteor.score(np.asarray(counts, dtype=np.float64).T @ matches)

    def mbmr(counts: Array) -> Array:
        mean_rouge = rouge @ counts / counts.sum(axis=0)
        return np.asarray((bleus(counts).sum(axis=1) + meteor(counts) + mean_rouge) / (ORDER + 2))

    def order(n: int) -> Metric:
        return lambda counts: np.asarray(bleus(counts)[:, n])

    others: dict[str, Metric] = {f"mbmr{lite}": mbmr, f"meteor{lite}": meteor}
    others |= {f"bleu_{n + 1}": order(n) for n in range(ORDER)}
    single = (bleu(grams).sum(axis=1) + tools.meteor.score(matches) + rouge) / (ORDER + 2)
    return {"rouge_l": rouge, "cider": np.array(cider(answers, references))}, others, single


def _with_boxes(reply: Reply) -> str:
    """The raw answer if it has JSON boxes: cleaning would cut JSON of several lines."""
    return reply.raw if '"bbox_2d"' in reply.raw else reply.answer


def _numbers(values: Any) -> Array:
    return np.array([float(value) for value in values])


def _one_stratum(replies: Sequence[Reply]) -> Array:
    return np.zeros(len(replies), dtype=np.int64)
