"""How a project's models are judged: by features against prompts, or by answers against references.

The student's family names the evaluation task; trust, the guard, retention and ``kdkit evaluate`` all use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import (
    Answering,
    AnswerView,
    DualEncoder,
    EvaluationTask,
    FeatureView,
    Split,
    StudentSpec,
    TaskSpec,
)
from kdkit.core.data.prompts import prompt_sets
from kdkit.core.evaluation.answer_views import CachedAnswers, StudentAnswers
from kdkit.core.evaluation.views import CachedView, StudentView
from kdkit.core.evaluation.zero_shot import Prompts

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.features.store.column import Column
    from kdkit.core.project.project import Project

Rows = np.ndarray[Any, np.dtype[np.int64]]
Progress = Callable[[int], None]


class Judge(Protocol):
    """Makes the views that its task can score."""

    @property
    def task(self) -> EvaluationTask: ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """The task's name and options, for records."""

    def rows(self, split: Split) -> Rows:
        """Samples of a split that can be judged."""

    def student(
        self, name: str, student: object, *, device: str, progress: Progress | None = None
    ) -> FeatureView | AnswerView:
        """A live student.

        Args:
            progress: called with the number of samples that were done.

        Raises:
            KdkitError: when it does not give what the task reads.
        """

    def teacher(self, name: str, column: Column) -> FeatureView | AnswerView:
        """A teacher, from what the store has of it."""


@dataclass(frozen=True)
class FeatureJudge:
    """For tasks that read image and text features; a sample is judged by its label."""

    table: SampleIndex
    prompts: Prompts
    task: EvaluationTask
    settings: Mapping[str, Any]

    def rows(self, split: Split) -> Rows:
        return self.table.select(split=split, labeled=True)

    def student(self, name: str, student: object, *, device: str, progress: Progress | None = None) -> FeatureView:
        if not isinstance(student, DualEncoder):
            raise _unable(name, "has no image and text features", self.settings)
        return StudentView(name, student, device=device, progress=progress)

    def teacher(self, name: str, column: Column) -> FeatureView:
        return CachedView(name, column, self.table, self.prompts)


@dataclass(frozen=True)
class AnswerJudge:
    """For tasks that read answers; a sample is judged by its text, the reference."""

    table: SampleIndex
    task: EvaluationTask
    settings: Mapping[str, Any]

    def rows(self, split: Split) -> Rows:
        chosen: Sequence[int] = [row for row in self.table.select(split=split) if self.table.samples[row].text]
        return np.array(chosen, dtype=np.int64)

    def student(self, name: str, student: object, *, device: str, progress: Progress | None = None) -> AnswerView:
        if not isinstance(student, Answering):
            raise _unable(name, "does not answer questions", self.settings)
        return StudentAnswers(name, student, device=device, progress=progress)

    def teacher(self, name: str, column: Column) -> CachedAnswers:
        return CachedAnswers(name, column, self.table)


def judge_of(project: Project, table: SampleIndex) -> FeatureJudge | AnswerJudge:
    """The judge of the project's student family, for the samples of ``table``.

    Raises:
        KdkitError: for a family or task that no plugin provides.
    """
    catalogue = project.catalogue
    name = cast(StudentSpec, catalogue.get("student", project.registry.student.family).spec).task
    spec = cast(TaskSpec, catalogue.get("task", name).spec)
    settings = {"task": name, **spec.options}
    if spec.reads == "answers":
        return AnswerJudge(table, cast(EvaluationTask, catalogue.make("task", name)), settings)
    prompts = prompt_sets(project.registry, table)
    return FeatureJudge(table, prompts, cast(EvaluationTask, catalogue.make("task", name, prompts=prompts)), settings)


def _unable(name: str, why: str, settings: Mapping[str, Any]) -> KdkitError:
    return KdkitError("KD-EVAL-010", f"{name} {why}, so the task '{settings['task']}' cannot judge it")
