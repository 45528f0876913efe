"""Evaluators: a task with the models' features against prompts, or their answers against references.

The student's family names the evaluation task; trust, the guard, retention and ``kdkit evaluate`` use the same one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import (
    Answering,
    DualEncoder,
    EvaluationTask,
    ModelAnswers,
    ModelFeatures,
    Split,
    StudentSpec,
    TaskSpec,
)
from kdkit.core.data.prompts import prompt_sets
from kdkit.core.evaluation.answers import StoredAnswers, StudentAnswers
from kdkit.core.evaluation.features import StoredFeatures, StudentFeatures
from kdkit.core.evaluation.zero_shot import Prompts

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.features.store.column import Column
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.project.registry.schema import Registry

Rows = np.ndarray[Any, np.dtype[np.int64]]
Progress = Callable[[int], None]


@dataclass(frozen=True)
class FeatureEvaluator:
    """For tasks that read image and text features; labels are the ground truth."""

    table: SampleIndex
    prompts: Prompts
    task: EvaluationTask
    settings: Mapping[str, Any]

    def rows(self, split: Split) -> Rows:
        return self.table.select(split=split, labeled=True)

    def measurable(self, rows: Rows) -> set[str]:
        """Domains that ``rows`` of :meth:`rows` can measure: those with samples of two classes."""
        classes = {(self.table.samples[row].domain, self.table.samples[row].label) for row in rows}
        return {domain for domain, count in Counter(domain for domain, _ in classes).items() if count > 1}

    def student(self, name: str, student: object, *, device: str, progress: Progress | None = None) -> ModelFeatures:
        if not isinstance(student, DualEncoder):
            raise _unsuitable(name, "has no image and text features", self.settings)
        return StudentFeatures(name, student, device=device, progress=progress)

    def teacher(self, name: str, column: Column) -> ModelFeatures:
        return StoredFeatures(name, column, self.table, self.prompts)


@dataclass(frozen=True)
class AnswerEvaluator:
    """For tasks that read answers; the sample's text is the reference."""

    table: SampleIndex
    task: EvaluationTask
    settings: Mapping[str, Any]

    def rows(self, split: Split) -> Rows:
        rows = self.table.select(split=split)
        return rows[[bool(self.table.samples[row].text) for row in rows]]

    def measurable(self, rows: Rows) -> set[str]:
        """Domains that ``rows`` of :meth:`rows` can measure."""
        return {self.table.samples[row].domain for row in rows}

    def student(self, name: str, student: object, *, device: str, progress: Progress | None = None) -> ModelAnswers:
        if not isinstance(student, Answering):
            raise _unsuitable(name, "does not answer questions", self.settings)
        return StudentAnswers(name, student, device=device, progress=progress)

    def teacher(self, name: str, column: Column) -> StoredAnswers:
        return StoredAnswers(name, column, self.table)


Evaluator = FeatureEvaluator | AnswerEvaluator


def make_evaluator(registry: Registry, catalogue: Catalogue, table: SampleIndex) -> Evaluator:
    """The evaluator of the registry's student family, for the samples of ``table``.

    Raises:
        KdkitError: for a family or task that no plugin provides.
    """
    name = catalogue.spec(StudentSpec, registry.student.family).task
    spec = catalogue.spec(TaskSpec, name)
    settings = {"task": name, **spec.options}
    if spec.reads == "answers":
        return AnswerEvaluator(table, catalogue.make_task(name), settings)
    prompts = prompt_sets(registry, table)
    task = catalogue.make_task(name, prompts=prompts)
    return FeatureEvaluator(table, prompts, task, settings)


def _unsuitable(name: str, why: str, settings: Mapping[str, Any]) -> KdkitError:
    return KdkitError(
        "KD-EVAL-010",
        f"'{name}' {why}, so the task '{settings['task']}' cannot score it",
        fix="choose a student family whose task reads what this student gives: 'kdkit plugins --json' lists both",
    )
