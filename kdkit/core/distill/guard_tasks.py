"""What the guard compares beside the student's own task: metrics of other tasks, such as ``retrieval/xray``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from torch import nn

from kdkit.core.contracts import Silent, TaskSpec
from kdkit.core.evaluation.compare import compare_models
from kdkit.core.evaluation.evaluator import Evaluator, TaskChoice, make_evaluator
from kdkit.core.evaluation.retention import measure_retention
from kdkit.core.evaluation.scores import Evaluation
from kdkit.core.project.lineage import DomainChange
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

    def compare(self, student: nn.Module, parent: Version) -> Iterator[DomainChange | str]:
        """A change per domain and subgroup; the name of what cannot be compared."""
        guard = self.project.registry.guard
        for task, targets in guard.targets.items():
            evaluator = make_evaluator(
                self.project.registry,
                self.project.catalogue,
                self.inventory.index,
                TaskChoice(task),
                by=list(guard.by),
            )
            after = self._evaluate(evaluator, student)
            if task not in self._before:
                self._before[task] = self._evaluate(evaluator, self._load(parent))
            headline = self.project.catalogue.spec(TaskSpec, task).headline
            for target in targets:
                kept = measure_retention(
                    self._before[task],
                    after,
                    tolerance=target.tolerance,
                    domains=[target.domain],
                    metric=target.metric or headline,
                    by=guard.by,
                )
                found: Sequence[DomainChange] = [*kept.domains.values(), *kept.checks]
                yield from (replace(change, task=task, metric=target.metric) for change in found)
                yield from (target.name for _ in kept.not_compared)

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
