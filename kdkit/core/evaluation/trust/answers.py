"""How well a teacher's stored answers score on calibration samples, by the same task that judges the student."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

from kdkit.core.contracts import Reporter
from kdkit.core.evaluation.trust.saved import Measured
from kdkit.core.features.extract.answers import read_answers

if TYPE_CHECKING:
    from kdkit.core.evaluation.judging import AnswerJudge
    from kdkit.core.features.store.column import Column

HEADLINE = "accuracy"
"""The metric, a mean over samples of numbers in [0, 1], that trust is made of."""


def fingerprint(judge: AnswerJudge, column: Column) -> str:
    """Of all that the scores depend on: the task, the samples, the answers."""
    table, rows = judge.table, judge.rows("calibration")
    samples = [[table.ids[row], table.samples[row].domain, int(table.digests[row])] for row in rows]
    answers = sorted([*key, text] for key, text in read_answers(column.folder).items())
    about = [column.fingerprint, dict(judge.settings), samples, answers]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def measure(judge: AnswerJudge, column: Column, scores: str, reporter: Reporter, advice: str) -> dict[str, Measured]:
    """Domain -> summed scores, for those of which every calibration sample was answered.

    Each sample's score goes beside the column under the name ``scores``; ``advice`` says who adds what is missing.
    """
    table = judge.table
    samples = [table.samples[row] for row in judge.rows("calibration")]
    view = judge.teacher(column.teacher, column)
    able = view.covered(samples)
    measured = {sample.domain for sample in able}
    lacking = dict.fromkeys(sample.domain for sample in samples if sample.domain not in measured)
    if lacking:
        reporter.warn(
            f"teacher '{column.teacher}' has not answered all calibration samples of {', '.join(lacking)} and is not "
            f"trusted there; {advice}"
        )
    places = dict(zip(table.ids, column.locate(table).tolist(), strict=True))
    found: dict[str, Measured] = {}
    for score in judge.task.evaluate(view, able):
        values = np.asarray(score.outcomes[HEADLINE], dtype=np.float64)
        found[score.domain] = Measured(float(values.sum()), len(values), 0)
        rows = np.array([places[name] for name in score.ids], dtype=np.int64)
        column.put_scores(scores, rows[rows >= 0], values[rows >= 0])
    return found
