"""Trust of a generating teacher: the student's task scores its stored answers to calibration samples."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.contracts import EvaluationTask, GradesAnswers, Reporter, Sample
from kdkit.core.evaluation.answers import GivenAnswers
from kdkit.core.evaluation.evaluator import AnswerEvaluator
from kdkit.core.evaluation.metrics import design_effect
from kdkit.core.evaluation.sampling import sample_groups
from kdkit.core.evaluation.trust.measurements import SCORES, DomainCount
from kdkit.core.features.extract.answers import read_answers

if TYPE_CHECKING:
    from kdkit.core.features.store.column import Column

HEADLINE = "accuracy"
"""The metric that trust is made of: a mean over samples of numbers in [0, 1]."""
FIXED = 4
"""Answers that are tried for all questions: the most frequent references, and as many of the teacher's."""


class AnswerTrust:
    """Scores the answers of every domain in which all calibration samples are answered."""

    def __init__(self, evaluator: AnswerEvaluator, reporter: Reporter) -> None:
        self._evaluator, self._reporter = evaluator, reporter

    def fingerprint(self, column: Column) -> str:
        """Digest of everything that the scores depend on: the task, the samples, the answers."""
        table, rows = self._evaluator.table, self._evaluator.rows("calibration")
        samples = [[table.ids[row], table.samples[row].domain, int(table.digests[row])] for row in rows]
        answers = sorted([*key, text] for key, text in read_answers(column.folder).items())
        inputs = [column.fingerprint, dict(self._evaluator.settings), samples, answers, "evidence of groups"]
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()

    def measure(self, column: Column, advice: str) -> dict[str, DomainCount]:
        """Domain -> summed scores; per-sample scores are stored beside the column.

        Args:
            advice: the remedy, appended to the warning about missing answers.
        """
        table = self._evaluator.table
        samples = [table.samples[row] for row in self._evaluator.rows("calibration")]
        stored = self._evaluator.teacher(column.teacher, column)
        covered = stored.covered(samples)
        measured = {sample.domain for sample in covered}
        lacking = dict.fromkeys(sample.domain for sample in samples if sample.domain not in measured)
        if lacking:
            self._reporter.warn(
                f"teacher '{column.teacher}' has not answered all calibration samples of {', '.join(lacking)} and is "
                f"not trusted there; {advice}"
            )
        places = dict(zip(table.ids, column.locate(table).tolist(), strict=True))
        by_id = {sample.id: sample for sample in covered}
        counts: dict[str, DomainCount] = {}
        for score in self._evaluator.task.evaluate(stored, covered):
            values = np.asarray(score.outcomes[HEADLINE], dtype=np.float64)
            samples = [by_id[name] for name in score.ids]
            answers = dict(zip(score.ids, stored.answer(samples), strict=True))
            chance = blind_score(self._evaluator.task, samples, answers)
            independent = evidence(values) / design_effect(values, sample_groups(samples))
            counts[score.domain] = DomainCount(float(values.sum()), len(values), chance, independent)
            rows = np.array([places[name] for name in score.ids], dtype=np.int64)
            column.put_scores(SCORES["label"], rows[rows >= 0], values[rows >= 0])
        return counts


def evidence(scores: np.ndarray[Any, Any]) -> float:
    """The variance of right and wrong answers of this mean, over that of the scores; 1 for scores of 0 and 1.

    One score of the larger variance is added, so that few equal scores do not look certain.
    """
    mean = float(scores.mean())
    widest = mean * (1 - mean)
    found = (len(scores) * float(scores.var()) + widest) / (len(scores) + 1)
    return widest / found if found > 0 else 1.0


def blind_score(task: EvaluationTask, samples: Sequence[Sample], answers: Mapping[str, str]) -> float:
    """The best mean score of a model that ignores the image: one fixed answer to all questions of a type.

    For closed questions it is the majority answer, for others a typical one. A text that belongs to a single question
    is not scored on that question.

    Args:
        samples: all of one domain.
        answers: the teacher's, by sample id; with the references they are the answers to try.
    """
    types: dict[str, list[Sample]] = {}
    for sample in samples:
        types.setdefault(task.question_type(sample) if isinstance(task, GradesAnswers) else "", []).append(sample)
    return sum(_best_fixed_answer(task, group, answers) * len(group) for group in types.values()) / len(samples)


def _best_fixed_answer(task: EvaluationTask, samples: Sequence[Sample], answers: Mapping[str, str]) -> float:
    references, own = [s.text for s in samples], [answers[s.id] for s in samples]
    owners: dict[str, set[str]] = {}
    for sample, *texts in zip(samples, references, own, strict=True):
        for text in texts:
            owners.setdefault(text, set()).add(sample.id)
    tried = dict.fromkeys(text for texts in (references, own) for text, _ in Counter(texts).most_common(FIXED))
    means = [
        float(_grade(task, others, text).mean())
        for text in tried
        if (others := [sample for sample in samples if owners[text] != {sample.id}])
    ]
    return max(means, default=1.0)  # of one question: nothing is known


def _grade(task: EvaluationTask, samples: Sequence[Sample], text: str) -> np.ndarray[Any, Any]:
    """The score of one answer to each question."""
    if isinstance(task, GradesAnswers):
        return task.grade(samples, [text] * len(samples))
    (score,) = task.evaluate(GivenAnswers(dict.fromkeys((sample.id for sample in samples), text)), samples)
    return np.asarray(score.outcomes[HEADLINE], dtype=np.float64)
