"""What the guard compares beside the student's own task: metrics of other tasks, such as ``retrieval/xray``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from torch import nn

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import Reporter, Silent, TaskSpec
from kdkit.core.evaluation.compare import compare_models
from kdkit.core.evaluation.evaluator import Evaluator, TaskChoice, make_evaluator
from kdkit.core.evaluation.retention import measure_retention
from kdkit.core.evaluation.scores import Evaluation
from kdkit.core.project.lineage import DomainChange
from kdkit.core.project.registry.schema import GuardTarget
from kdkit.core.project.versions import Version, load_student

if TYPE_CHECKING:
    from kdkit.core.distill.plan.inventory import TeachingInventory
    from kdkit.core.project.project import Project

STUDENT = "student"
"""Name of the student in evaluations of one."""


@dataclass
class GuardTasks:
    """Compares students with the parent on the guard's other tasks. The parent is scored once."""

    project: Project
    inventory: TeachingInventory
    _parent: nn.Module | None = None
    _before: dict[str, Evaluation] = field(default_factory=dict)

    def check(self, parent: Version) -> None:
        """Score the parent, before any training.

        Raises:
            KdkitError: a metric that the parent has no score of, or that cannot be compared; those of the task.
        """
        for task, targets in self.project.registry.guard.targets.items():
            before = self._score_parent(task, self._evaluator(task), parent)
            for target in targets:
                _require_comparable(target, target.metric or self._headline(task), before)

    def compare(
        self, student: nn.Module, parent: Version, reporter: Reporter | None = None
    ) -> Iterator[DomainChange | str]:
        """A change per domain and subgroup; the name of what cannot be compared.

        A task that fails is not compared, with a warning: the student is trained already.
        """
        for task, targets in self.project.registry.guard.targets.items():
            try:
                evaluator = self._evaluator(task)
                after = self._evaluate(evaluator, student)
                before = self._score_parent(task, evaluator, parent)
            except KdkitError as error:
                (reporter or Silent()).warn(f"the guard cannot compare the task '{task}': {error}")
                yield from (target.name for target in targets)
                continue
            for target in targets:
                yield from self._changes(target, task, before, after)

    def _changes(
        self, target: GuardTarget, task: str, before: Evaluation, after: Evaluation
    ) -> Iterator[DomainChange | str]:
        kept = measure_retention(
            before,
            after,
            tolerance=target.tolerance,
            domains=[target.domain],
            metric=target.metric or self._headline(task),
            by=self.project.registry.guard.by,
        )
        found: Sequence[DomainChange] = [*kept.domains.values(), *kept.checks]
        yield from (replace(change, task=task, metric=target.metric) for change in found)
        for name in kept.not_compared:
            yield name.replace(target.domain, target.name, 1)

    def _headline(self, task: str) -> str:
        return self.project.catalogue.spec(TaskSpec, task).headline

    def _evaluator(self, task: str) -> Evaluator:
        registry, skipped = self.project.registry, self.inventory.skipped
        choice, by = TaskChoice(task), list(registry.guard.by)
        return make_evaluator(registry, self.project.catalogue, self.inventory.index, choice, skipped, by)

    def _score_parent(self, task: str, evaluator: Evaluator, parent: Version) -> Evaluation:
        if task not in self._before:
            self._before[task] = self._evaluate(evaluator, self._load(parent))
        return self._before[task]

    def _evaluate(self, evaluator: Evaluator, student: nn.Module) -> Evaluation:
        readable = np.intersect1d(evaluator.rows("calibration"), self.inventory.rows("calibration"))
        device = str(next(student.parameters()).device)
        return compare_models(
            evaluator.task,
            [evaluator.student(STUDENT, student, device=device)],
            [],
            [self.inventory.index.samples[row] for row in readable],
            settings=evaluator.settings,
            subgroups=evaluator.subgroups,
            reporter=Silent(),
        )

    def _load(self, parent: Version) -> nn.Module:
        if self._parent is None:
            self._parent = cast(nn.Module, load_student(parent, self.project.catalogue))
        return self._parent


def _require_comparable(target: GuardTarget, metric: str, before: Evaluation) -> None:
    score = before.model(STUDENT).domains.get(target.domain)
    able = [] if score is None else sorted({*score.outcomes, *score.draws})
    if metric in able:
        return
    why = f"it can compare these metrics there: {', '.join(able)}"
    if score is None:
        why = before.skipped.get(target.domain, "the task gives no score for it")
    raise KdkitError(
        "KD-DIST-280",
        f"the guard cannot compare '{metric}' of '{target.name}'",
        where=f"registry.yaml, guard.{target.name}",
        why=why,
        fix=did_you_mean(metric, able) if able else "remove this line",
    )
