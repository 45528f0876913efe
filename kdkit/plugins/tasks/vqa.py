"""Questions about images with a closed set of answers, by frozen image and text encoders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from kdkit.core.contracts import DomainScore, ModelFeatures, Sample, columns_of, question_of
from kdkit.core.evaluation.metrics import LEVEL, RESAMPLES, SEED
from kdkit.core.evaluation.sampling import of_each_domain, require_separate_groups
from kdkit.core.evaluation.scoring import Bootstrap, Predicted, Subgroups, score_domain
from kdkit.plugins.tasks.classifiers import LinearProbe, Part, fit_chosen

Array = np.ndarray[Any, Any]
STRENGTHS = (0.1, 1.0, 10.0, 100.0)
ALONE = "accuracy (question alone)"


class ClosedQuestions:
    """Accuracy of a logistic regression on the features of image and question, per domain.

    Its input is ``[image, question, image * question]``, each of unit length. It chooses among the answers of the
    training split. A second one sees the question alone: what it gets right needs no image.

    Args:
        training: training and calibration samples with a question and an answer.
        answer: name of the metadata with the answer.
        strengths: values of scikit-learn's ``C`` to choose from, on the calibration split.
        resamples, seed, level: of the bootstrap, which draws samples, or groups (patients) where they are known.
        subgroups: column -> sample id -> value, for scores of subgroups.
    """

    def __init__(
        self,
        *,
        training: Sequence[Sample],
        answer: str = "answer",
        strengths: Sequence[float] = STRENGTHS,
        resamples: int = RESAMPLES,
        seed: int = SEED,
        level: float = LEVEL,
        subgroups: Subgroups | None = None,
    ) -> None:
        self.training, self.answer, self.probe = training, answer, LinearProbe(tuple(strengths), 1000)
        self.how = Bootstrap(resamples, seed, level, subgroups or {})

    def evaluate(self, model: ModelFeatures, samples: Sequence[Sample]) -> Sequence[DomainScore]:
        """One score per domain with training samples of at least two answers.

        Raises:
            KdkitError: a group with samples on both sides of the fit.
        """
        return [
            self._score(model, name, found) for name, found in of_each_domain(samples) if not self.why_skipped(found)
        ]

    def why_skipped(self, samples: Sequence[Sample]) -> str:
        """Why samples of one domain cannot be scored."""
        known = {self._answer(sample) for sample in self._split(samples[0].domain, "train")}
        return "" if len(known) > 1 else "it has no training questions with two different answers"

    def _split(self, domain: str, split: str) -> list[Sample]:
        return [sample for sample in self.training if sample.domain == domain and sample.split == split]

    def _answer(self, sample: Sample) -> str:
        return " ".join(columns_of(sample)[self.answer].casefold().split()).removesuffix(".")

    def _score(self, model: ModelFeatures, domain: str, scored: Sequence[Sample]) -> DomainScore:
        train, validation = (self._split(domain, split) for split in ("train", "calibration"))
        held_out = [sample for sample in scored if sample.split != "train"]
        require_separate_groups(train, [*validation, *held_out])
        require_separate_groups(validation, [sample for sample in held_out if sample.split == "test"])
        number = {answer: row for row, answer in enumerate(sorted({self._answer(sample) for sample in train}))}
        validation = [sample for sample in validation if self._answer(sample) in number]
        labels = [
            np.array([number.get(self._answer(sample), -1) for sample in part], dtype=np.int64)
            for part in (train, validation, scored)
        ]
        image, question = self._features(model, [*train, *validation, *scored])
        cuts = np.cumsum([len(train), len(validation)])
        both = [image, question]
        if image.shape == question.shape:  # a teacher may have features of two widths
            both.append(_unit(image * question))
        outcomes = {}
        for name, rows in (("accuracy", np.concatenate(both, axis=1)), (ALONE, question)):
            parts = [Part(features, own) for features, own in zip(np.split(rows, cuts), labels, strict=True)]
            fitted = fit_chosen(self.probe, parts[0], parts[1], 1.0)
            outcomes[name] = (fitted.predict(parts[2].features) == labels[2]).astype(np.float64)
        notes = [f"{len(number)} answers to choose from"]
        if unseen := Counter(self._answer(s) for s in scored if self._answer(s) not in number):
            notes.append(f"{unseen.total()} samples have an answer that no training sample has, and count as wrong")
        strata = np.zeros(len(scored), dtype=np.int64)
        return score_domain(domain, Predicted(scored, strata, outcomes), self.how, notes=notes)

    def _features(self, model: ModelFeatures, samples: Sequence[Sample]) -> tuple[Array, Array]:
        """Unit features (N, D) of the images and of the questions."""
        images = list({sample.image: sample for sample in reversed(samples)}.values())
        place = {sample.image: row for row, sample in enumerate(images)}
        texts = list(dict.fromkeys(question_of(sample) for sample in samples))
        row = {text: number for number, text in enumerate(texts)}
        image = model.image(images)[[place[sample.image] for sample in samples]]
        return image, model.text(texts)[[row[question_of(sample)] for sample in samples]]


def _unit(rows: Array) -> Array:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(length, 1e-12), dtype=np.float32)
