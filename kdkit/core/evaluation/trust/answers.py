"""Trust of a generating teacher: the student's task scores its stored answers to calibration samples."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

from kdkit.core.contracts import Reporter
from kdkit.core.evaluation.evaluator import AnswerEvaluator
from kdkit.core.evaluation.trust.measurements import SCORES, DomainCount
from kdkit.core.features.extract.answers import read_answers

if TYPE_CHECKING:
    from kdkit.core.features.store.column import Column

HEADLINE = "accuracy"
"""The metric that trust is made of: a mean over samples of numbers in [0, 1]."""


class AnswerTrust:
    """Scores the answers of every domain in which all calibration samples are answered."""

    def __init__(self, evaluator: AnswerEvaluator, reporter: Reporter) -> None:
        self._evaluator, self._reporter = evaluator, reporter

    def fingerprint(self, column: Column) -> str:
        """Digest of everything that the scores depend on: the task, the samples, the answers."""
        table, rows = self._evaluator.table, self._evaluator.rows("calibration")
        samples = [[table.ids[row], table.samples[row].domain, int(table.digests[row])] for row in rows]
        answers = sorted([*key, text] for key, text in read_answers(column.folder).items())
        inputs = [column.fingerprint, dict(self._evaluator.settings), samples, answers]
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
        counts: dict[str, DomainCount] = {}
        for score in self._evaluator.task.evaluate(stored, covered):
            values = np.asarray(score.outcomes[HEADLINE], dtype=np.float64)
            counts[score.domain] = DomainCount(float(values.sum()), len(values), 0)
            rows = np.array([places[name] for name in score.ids], dtype=np.int64)
            column.put_scores(SCORES, rows[rows >= 0], values[rows >= 0])
        return counts
