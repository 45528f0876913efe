"""The verdict on a student: scores on the calibration split, and the guard on the change since the parent.

The test split stays untouched until ``kdkit evaluate``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
from torch import nn

from kdkit.core.contracts import Reporter, Silent, Split
from kdkit.core.distill.guard_tasks import STUDENT, GuardTasks
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.plan.types import Plan
from kdkit.core.evaluation.compare import compare_models, with_students_of
from kdkit.core.evaluation.evaluator import make_evaluator
from kdkit.core.evaluation.guard import Verdict, apply_guard
from kdkit.core.evaluation.retention import Retention, measure_retention
from kdkit.core.evaluation.scores import Evaluation
from kdkit.core.features.extract.missing import extraction_hint
from kdkit.core.project.lineage import GuardRecord, RetentionRecord
from kdkit.core.project.versions import EVALUATION, Version, load_student

if TYPE_CHECKING:
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class Judgement:
    """Scores of a student beside its teachers; ``retention`` is None without a parent."""

    evaluation: Evaluation
    retention: RetentionRecord | None

    @property
    def passed(self) -> bool:
        """Whether the guard promotes the student."""
        guard = None if self.retention is None else self.retention.guard
        return guard is None or guard.promoted


class Judge:
    """Judges the students of one run. The scores of teachers and parent are computed once."""

    def __init__(
        self, project: Project, plan: Plan, inventory: TeachingInventory, parent: Version | None, reporter: Reporter
    ) -> None:
        self._project, self._plan, self._inventory = project, plan, inventory
        self._parent, self._reporter = parent, reporter
        self._first: Evaluation | None = None
        self._before: Evaluation | None = None
        self._tasks = GuardTasks(project, inventory)

    def judge(self, student: nn.Module) -> Judgement:
        """Evaluate the student and apply the guard."""
        self._reporter.say("evaluating on the calibration split")
        if self._first is None:
            evaluation = self._first = self.evaluate(student, teachers=True)
        else:
            evaluation = with_students_of(self._first, self.evaluate(student))
        if self._parent is None:
            return Judgement(evaluation, None)
        guard, known = self._project.registry.guard, self._parent.lineage.data.known
        kept = measure_retention(
            self._parent_evaluation(self._parent, evaluation),
            evaluation,
            tolerance=guard.tolerance,
            tolerances=guard.domains,
            trusted={teacher.name: tuple(teacher.admitted) for teacher in self._plan.teachers},
            domains=sorted(known),
            by=guard.by,
        )
        others = list(self._tasks.compare(student, self._parent, self._reporter))
        kept = replace(
            kept,
            checks=(*kept.checks, *(one for one in others if not isinstance(one, str))),
            not_compared=(*kept.not_compared, *(one for one in others if isinstance(one, str))),
        )
        return Judgement(evaluation, _retention(kept, apply_guard(kept, guard)))

    def evaluate(self, student: nn.Module, *, teachers: bool = False) -> Evaluation:
        """Scores of the student, and of the teachers if asked for."""
        reporter = self._reporter if teachers else Silent()  # the first evaluation warns of what is not measured
        return evaluate_student(self._project, self._inventory, student, reporter, teachers=teachers)

    def saved_parent_evaluation(self, after: Evaluation, domains: Collection[str]) -> Evaluation | None:
        """The evaluation that the parent was saved with, if it has the samples of ``after`` in ``domains``.

        A pulled version has no saved evaluation, and the data of a project may change.
        """
        if self._parent is None or EVALUATION not in self._parent.manifest.files:
            return None
        before = Evaluation.load(self._parent.file(EVALUATION))
        same = all(_sample_ids(before, domain) == _sample_ids(after, domain) for domain in domains)
        return before if same else None

    def _parent_evaluation(self, parent: Version, after: Evaluation) -> Evaluation:
        if self._before is None:
            self._before = self.saved_parent_evaluation(after, parent.lineage.data.known)
        if self._before is None:
            self._reporter.say(f"evaluating {parent.name} on the same calibration samples")
            self._before = self.evaluate(cast(nn.Module, load_student(parent, self._project.catalogue)))
        return self._before


def evaluate_student(
    project: Project,
    inventory: TeachingInventory,
    student: nn.Module,
    reporter: Reporter,
    *,
    split: Split = "calibration",
    teachers: bool = True,
) -> Evaluation:
    """Scores of the student, and of the teachers unless switched off, on the labeled samples of a split."""
    by = list(project.registry.guard.by)
    evaluator = make_evaluator(project.registry, project.catalogue, inventory.index, by=by)
    readable = np.intersect1d(evaluator.rows(split), inventory.rows(split))
    return compare_models(
        evaluator.task,
        [evaluator.student(STUDENT, student, device=str(next(student.parameters()).device))],
        [evaluator.teacher(name, inventory.columns[name]) for name in inventory.teachers] if teachers else [],
        [inventory.index.samples[row] for row in readable],
        trust=inventory.trust if teachers and inventory.trust.by == "label" else None,
        advice=partial(extraction_hint, project.registry, project.lock),
        subgroups=evaluator.subgroups,
        reporter=reporter,
    )


def _sample_ids(evaluation: Evaluation, domain: str) -> tuple[str, ...]:
    score = evaluation.model(STUDENT).domains.get(domain)
    return () if score is None else score.ids


def _retention(kept: Retention, verdict: Verdict) -> RetentionRecord:
    mean, low, high = (None if np.isnan(value) else value for value in (kept.mean, kept.low, kept.high))
    failed, uncertain = (tuple(c.name for c in changes) for changes in (verdict.failed, verdict.uncertain))
    guard = GuardRecord(verdict.promoted, failed, uncertain, verdict.mean_failed)
    return RetentionRecord(**{**vars(kept), "mean": mean, "low": low, "high": high}, guard=guard)
