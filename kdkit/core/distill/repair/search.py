"""The candidates of a repair and the choice among them, on the calibration split."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdkit.core.contracts import Reporter
from kdkit.core.distill.guard_tasks import STUDENT
from kdkit.core.distill.judge import Judge, Judgement
from kdkit.core.distill.loop.checkpoint_state import load_task_tensors
from kdkit.core.distill.model.interpolation import State, interpolate, save_state
from kdkit.core.distill.model.task import DistillTask
from kdkit.core.evaluation.scores import Evaluation
from kdkit.core.project.lineage import RetentionRecord
from kdkit.core.project.repair_record import RepairAttempt, RepairRecord

ENOUGH = 0.9
"""Share of the gain of the student as trained that interpolation must keep; otherwise it is rehearsed more."""


@dataclass(frozen=True)
class Attempt:
    """A judged candidate."""

    record: RepairAttempt
    judgement: Judgement


class RepairSearch:
    """Judges candidates one after the other, on the main process.

    Args:
        task: whose student broke the guard; only :meth:`finish` changes it for good.
        start: state of the task before training: the parent's, with heads of new teachers fitted to it.
        weights: each a gives a candidate (1 - a) start + a trained.
        fresh: domain -> number of fresh samples; the gain is the mean over them.
        parent: name of the parent, for messages.
    """

    def __init__(
        self,
        task: DistillTask,
        judge: Judge,
        *,
        start: State,
        weights: Sequence[float],
        fresh: Mapping[str, int],
        parent: str,
        reporter: Reporter,
    ) -> None:
        self._task, self._judge, self._start, self._weights = task, judge, start, weights
        self._fresh, self._parent, self._reporter = fresh, parent, reporter
        self._states: dict[int, State] = {}
        self._before: Evaluation | None = None
        self._begun = time.monotonic()
        self._attempts: list[Attempt] = []

    def add(self, judgement: Judgement, *, rehearsed: int = 0) -> None:
        """The student as it is now, and, if the guard refuses it, those between the parent's and its weights.

        Args:
            judgement: of the student as it is now.
            rehearsed: steps of additional training that it has had.
        """
        trained = self._states[rehearsed] = save_state(self._task)
        self._append(rehearsed, 1.0, judgement)
        if judgement.passed:
            return
        for a in sorted(set(self._weights), reverse=True):
            load_task_tensors(self._task, interpolate(self._start, trained, a))
            self._append(rehearsed, a, self._judge.judge(self._task.student))
        load_task_tensors(self._task, trained)

    @property
    def enough(self) -> bool:
        """Whether the best candidate keeps enough of what the student as trained has gained."""
        return keeps_enough([one.record for one in self._attempts])

    def lost(self) -> tuple[str, ...]:
        """Old domains with which the student as trained broke the guard."""
        retention = self._attempts[0].judgement.retention
        return () if retention is None else lost_domains(retention)

    def finish(self, rehearsed: Sequence[str]) -> tuple[Judgement, RepairRecord]:
        """Load the best candidate, or the student as it was trained if there is none.

        Args:
            rehearsed: domains of the additional training, if there was one.
        """
        kept = choose_attempt([one.record for one in self._attempts])
        chosen = self._attempts[kept or 0]
        state, a = self._states[chosen.record.rehearsed], chosen.record.weight
        load_task_tensors(self._task, state if a == 1 else interpolate(self._start, state, a))
        record = RepairRecord(
            attempts=tuple(one.record for one in self._attempts),
            kept=kept,
            new=tuple(sorted(self._fresh)),
            rehearsed=tuple(rehearsed),
            seconds=round(time.monotonic() - self._begun, 3),
        )
        return chosen.judgement, record

    def _append(self, rehearsed: int, a: float, judgement: Judgement) -> None:
        kept = judgement.retention
        assert kept is not None
        record = RepairAttempt(
            rehearsed=rehearsed,
            weight=a,
            gain=self._gain(judgement.evaluation, kept.metric),
            worst=kept.worst.domain if kept.worst else None,
            points=kept.worst.points if kept.worst else None,
            mean=kept.mean,
            passed=judgement.passed,
        )
        self._attempts.append(Attempt(record, judgement))
        verdict = "passes" if judgement.passed else "breaks"
        self._reporter.say(f"{record.describe(self._parent)}: {verdict} the guard")

    def _gain(self, after: Evaluation, metric: str) -> float | None:
        """Points gained since the parent: mean over the domains of the fresh samples, weighed by their number."""
        scores = after.model(STUDENT).domains
        measured = [domain for domain in self._fresh if domain in scores and metric in scores[domain].metrics]
        if not measured:
            return None
        if self._before is None:
            self._before = self._judge.saved_parent_evaluation(after, measured) or self._evaluate_start()
        before = self._before.model(STUDENT).domains
        gains = [100 * (scores[domain].metrics[metric] - before[domain].metrics[metric]) for domain in measured]
        return float(np.average(gains, weights=[self._fresh[domain] for domain in measured]))

    def _evaluate_start(self) -> Evaluation:
        now = save_state(self._task)
        load_task_tensors(self._task, self._start)
        evaluation = self._judge.evaluate(self._task.student)
        load_task_tensors(self._task, now)
        return evaluation


def choose_attempt(attempts: Sequence[RepairAttempt]) -> int | None:
    """Number of the best candidate that the guard promotes; None if none of them passes and gains anything.

    The best one gains most; of equals, it keeps most. If gains cannot be measured, it has the largest weight: the
    smaller weights pass too, because they learned less.

    Example:
        >>> trained = RepairAttempt(0, 1.0, None, "ct", -9.0, -9.0, passed=False)
        >>> half = RepairAttempt(0, 0.5, None, "ct", -2.0, -2.0, passed=True)
        >>> quarter = RepairAttempt(0, 0.25, None, "ct", -0.5, -0.5, passed=True)
        >>> choose_attempt([trained, half, quarter]), keeps_enough([trained, half, quarter])
        (1, False)
    """

    def rank(number: int) -> tuple[float, float]:
        one = attempts[number]
        return one.weight if one.gain is None else one.gain, one.mean or 0.0

    passed = [n for n, one in enumerate(attempts) if one.passed and (one.gain is None or one.gain > 0)]
    return max(passed, key=rank, default=None)


def keeps_enough(attempts: Sequence[RepairAttempt]) -> bool:
    """Whether the best candidate keeps enough of the gain of the first, the student as trained; False if gains cannot
    be measured."""
    best = choose_attempt(attempts)
    gain, first = None if best is None else attempts[best].gain, attempts[0].gain
    return gain is not None and first is not None and gain >= ENOUGH * first


def lost_domains(retention: RetentionRecord) -> tuple[str, ...]:
    """Domains that broke the guard; if the mean did, all that lost."""
    guard = retention.guard
    if guard is None:
        return ()
    lost = [name for name, change in retention.domains.items() if guard.mean_failed and change.points < 0]
    domain_of = {change.name: change.domain for change in retention.checks}
    return tuple(dict.fromkeys([*(domain_of.get(name, name) for name in guard.failed), *lost]))
