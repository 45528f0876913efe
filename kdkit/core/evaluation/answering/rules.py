"""Rules by which one of several answers to a sample is chosen: the answer with the highest score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from kdkit.core.contracts import ComparesAnswers, Sample
from kdkit.core.evaluation.answering.names import AGREEMENT, NEAREST
from kdkit.core.evaluation.answering.rerank import Reranker

if TYPE_CHECKING:
    from PIL.Image import Image

DIGITS = 9
"""Of a mean agreement. Equal ones must tie, whatever the order of their sum."""

Scores = list[list[float]]


class Rule(Protocol):
    """Scores the answers to a batch of samples."""

    @property
    def name(self) -> str: ...

    def score(
        self, samples: Sequence[Sample], images: Sequence[Image], texts: Sequence[Sequence[str]]
    ) -> tuple[Scores, set[str]]:
        """A score for each answer, and the answers that were not read whole."""


class NearestToImage:
    """The answer nearest to the image by a dual encoder: the selective generation (SASG) of ClinKD."""

    name = NEAREST

    def __init__(self, reranker: Reranker) -> None:
        self._reranker = reranker

    def score(
        self,
        samples: Sequence[Sample],  # noqa: ARG002  # a dual encoder reads images and answers
        images: Sequence[Image],
        texts: Sequence[Sequence[str]],
    ) -> tuple[Scores, set[str]]:
        return self._reranker.score(images, texts)


class MostAgreed:
    """The answer with the highest mean agreement with the others: boxes by overlap, closed questions by vote."""

    name = AGREEMENT

    def __init__(self, task: ComparesAnswers) -> None:
        self._task = task

    def score(
        self,
        samples: Sequence[Sample],
        images: Sequence[Image],  # noqa: ARG002  # answers are compared with each other
        texts: Sequence[Sequence[str]],
    ) -> tuple[Scores, set[str]]:
        return [self._of_one(sample, group) for sample, group in zip(samples, texts, strict=True)], set()

    def _of_one(self, sample: Sample, answers: Sequence[str]) -> list[float]:
        table = np.asarray(self._task.agreement(sample, answers), dtype=np.float64)
        others = (table.sum(axis=1) - table.diagonal()) / max(len(answers) - 1, 1)
        return [round(float(value), DIGITS) for value in others]


def rules_for(task: object, reranker: Reranker | None) -> list[Rule]:
    """The rules that a task and a dual encoder allow, none in the worst case.

    A task that does not compare answers says nothing of boxes: all its answers count as texts.
    """
    if not isinstance(task, ComparesAnswers):
        return [NearestToImage(reranker)] if reranker else []
    return [*([NearestText(task, reranker)] if reranker else []), MostAgreed(task)]


class NearestText:
    """Free texts by the dual encoder, all other answers by agreement: a dual encoder reads no boxes."""

    name = NEAREST

    def __init__(self, task: ComparesAnswers, reranker: Reranker) -> None:
        self._task, self._agreed, self._nearest = task, MostAgreed(task), NearestToImage(reranker)

    def score(
        self, samples: Sequence[Sample], images: Sequence[Image], texts: Sequence[Sequence[str]]
    ) -> tuple[Scores, set[str]]:
        scores, _ = self._agreed.score(samples, images, texts)
        free = [place for place, sample in enumerate(samples) if self._task.is_free_text(sample)]
        if not free:
            return scores, set()
        found, truncated = self._nearest.score([], [images[n] for n in free], [texts[n] for n in free])
        for place, cosines in zip(free, found, strict=True):
            scores[place] = cosines
        return scores, truncated
