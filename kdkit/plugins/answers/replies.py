"""One reply with its reference, and what graders give: outcomes per sample and metrics over all.

Shapes: N samples, R bootstrap resamples. A metric maps ``counts`` (N, R), the number of draws of each sample, to (R,).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kdkit.core.evaluation.metrics import Metric
from kdkit.plugins.answers.boxes.scoring import THRESHOLD
from kdkit.plugins.answers.text.meteor import Meteor, MeteorLite
from kdkit.plugins.answers.text.spice import Spice

Array = np.ndarray[Any, Any]
HEADLINE = "accuracy"
"""The metric of trust, retention and the guard."""
SIMILARITY = "similarity"
"""The metric of corrections, for tasks with a binary headline."""

PUBLISHED = "accuracy_published"
"""The headline by the published rule."""
CHOICES = "choices"
"""Key of ``Sample.extra`` with the options of a multiple choice question: a list of texts."""
ALTERNATIVES = "alternatives"
"""Key of ``Sample.extra`` with further right answers: a list of texts."""

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
    """One answer with its reference: ``answer`` up to its end token, ``published`` as BiRD cleans it.

    Attributes:
        answer_type: of the data set: OPEN or CLOSED.
        choices: the options of a multiple choice question.
        alternatives: further right answers.
    """

    answer: str
    reference: str
    published: str
    answer_type: str | None = None
    choices: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()

    @property
    def references(self) -> tuple[str, ...]:
        return (self.reference, *self.alternatives)

    @classmethod
    def of(cls, answer: str, reference: str, extra: Mapping[str, Any] | None = None) -> Reply:
        """From an answer to a sample with this text and ``extra``."""
        given = extra or {}
        return cls(
            _END.split(answer, maxsplit=1)[0].strip(),
            reference.strip(),
            clean_as_published(answer),
            given.get("answer_type"),
            tuple(given.get(CHOICES, ())),
            tuple(given.get(ALTERNATIVES, ())),
        )


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


def share(part: Array, whole: Array) -> Metric:
    """Sum of ``part`` over sum of ``whole``, 0 where that is 0."""

    def metric(counts: Array) -> Array:
        above, below = part @ counts, whole @ counts
        return np.asarray(np.divide(above, below, out=np.zeros_like(above, dtype=np.float64), where=below > 0))

    return metric


def numbers(values: Iterable[float]) -> Array:
    """(N,) float64."""
    return np.array([float(value) for value in values])


def one_stratum(replies: Sequence[Reply]) -> Array:
    """(N,) zeros: the bootstrap draws from all samples alike."""
    return np.zeros(len(replies), dtype=np.int64)
