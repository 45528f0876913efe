"""Evaluators: a task with the models' features against prompts, or their answers against references.

The student's family names the evaluation task of trust, the guard, retention and ``kdkit evaluate``, which can choose
another.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import (
    FINDINGS,
    QUESTION,
    SPLITS,
    Answering,
    DualEncoder,
    EvaluationTask,
    ModelFeatures,
    Sample,
    Split,
    StudentSpec,
    TaskSpec,
    columns_of,
    question_of,
)
from kdkit.core.data.prompts import finding_sets, prompt_sets
from kdkit.core.evaluation.answers import StoredAnswers, StudentAnswers
from kdkit.core.evaluation.features import StoredFeatures, StudentFeatures
from kdkit.core.evaluation.scoring import Subgroups
from kdkit.core.evaluation.subgroups import read_subgroups
from kdkit.core.evaluation.zero_shot import Prompts
from kdkit.core.plugin_system.catalogue import resolve

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.features.store.column import Column
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.project.project import Project
    from kdkit.core.project.registry.schema import Registry

Rows = np.ndarray[Any, np.dtype[np.int64]]
Progress = Callable[[int], None]
KEPT = "evaluation/tasks"
"""Folder in a project's state with what tasks keep; people may delete it."""


@dataclass(frozen=True)
class FeatureEvaluator:
    """For tasks that read image or text features; labels or captions are the ground truth.

    Attributes:
        prompts: of all classes; empty for tasks without prompts.
        training: the training and calibration samples that the task fits on; empty if it fits nothing.
        calibration: the calibration samples that its sets or thresholds come from.
        subgroups: those of ``by``.
    """

    table: SampleIndex
    prompts: Prompts
    task: EvaluationTask
    settings: Mapping[str, Any]
    spec: TaskSpec
    training: tuple[Sample, ...] = ()
    calibration: tuple[Sample, ...] = ()
    subgroups: Subgroups = field(default_factory=dict)

    def left_out(self, split: Split) -> int:
        """Samples of the split, and of the training split for tasks that fit on it, that a teacher named."""
        given = self.table.text_of_teacher if self.spec.truth == "captions" else self.table.domain_of_teacher
        splits: set[Split] = {split, "train"} if self.training else {split}
        return int(sum(given[self.table.select(one)].sum() for one in splits))

    def rows(self, split: Split) -> Rows:
        return _truth_rows(self.table, self.spec, self.settings, split)

    def measurable(self, rows: Rows) -> set[str]:
        """Domains that ``rows`` of :meth:`rows` can measure: those with samples of two classes, or two captions."""
        if self.spec.truth in ("findings", "metadata"):
            counts = Counter(self.table.samples[row].domain for row in rows)
            return {domain for domain, count in counts.items() if count > 1}
        kinds = self.table.label_index if self.spec.truth == "labels" else self.table.text_index
        found = set(zip(self.table.domain_index[rows].tolist(), kinds[rows].tolist(), strict=True))
        counts = Counter(number for number, _ in found)
        return {self.table.domains[number] for number, count in counts.items() if count > 1}

    def student(self, name: str, student: object, *, device: str, progress: Progress | None = None) -> ModelFeatures:
        if not isinstance(student, DualEncoder):
            raise _unsuitable(name, "has no image and text features", self.settings)
        return StudentFeatures(name, student, device=device, progress=progress)

    def teacher(self, name: str, column: Column) -> ModelFeatures:
        return StoredFeatures(name, column, self.table, self.prompts, reads=self.spec.reads, training=self.training)


@dataclass(frozen=True)
class AnswerEvaluator:
    """For tasks that read answers; the sample's text is the reference."""

    table: SampleIndex
    task: EvaluationTask
    settings: Mapping[str, Any]
    subgroups: Subgroups = field(default_factory=dict)

    def left_out(self, split: Split) -> int:
        """Samples of the split whose domain or text a teacher named."""
        return int(self.table.text_of_teacher[self.table.select(split)].sum())

    def rows(self, split: Split) -> Rows:
        rows = self.table.select(split=split)
        return rows[self.table.has_text[rows] & ~self.table.text_of_teacher[rows]]

    def measurable(self, rows: Rows) -> set[str]:
        """Domains that ``rows`` of :meth:`rows` can measure."""
        return {self.table.domains[number] for number in np.unique(self.table.domain_index[rows])}

    def student(self, name: str, student: object, *, device: str, progress: Progress | None = None) -> StudentAnswers:
        if not isinstance(student, Answering):
            raise _unsuitable(name, "does not answer questions", self.settings)
        return StudentAnswers(name, student, device=device, progress=progress)

    def teacher(self, name: str, column: Column) -> StoredAnswers:
        return StoredAnswers(name, column, self.table)


Evaluator = FeatureEvaluator | AnswerEvaluator


def own_task(project: Project) -> str:
    """The task of the registry's student family. Raises: KdkitError for a family that no plugin provides."""
    return project.catalogue.spec(StudentSpec, project.registry.student.family).task


@dataclass(frozen=True)
class TaskChoice:
    """An evaluation task by name, with options of its factory."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


def make_evaluator(
    registry: Registry,
    catalogue: Catalogue,
    table: SampleIndex,
    choice: TaskChoice | None = None,
    skipped: np.ndarray[Any, Any] | None = None,
    by: Sequence[str] = (),
    state: Path | None = None,
) -> Evaluator:
    """An evaluator for the samples of ``table``.

    Args:
        choice: of the task; by default that of the registry's student family.
        skipped: (N,) bool, samples that nothing is fitted on, such as unreadable ones.
        by: columns of the samples, for scores of subgroups.
        state: of the project; a task may keep in a folder there what is costly to compute.

    Raises:
        KdkitError: for a family, task or option that no plugin provides, or a column that no sample has.
    """
    choice = choice or TaskChoice(catalogue.spec(StudentSpec, registry.student.family).task)
    spec = catalogue.spec(TaskSpec, choice.name)
    settings = {"task": choice.name, **spec.options, **choice.options, "headline": spec.headline}
    given: dict[str, Any] = dict(choice.options)
    takes = inspect.signature(resolve(spec.factory)).parameters
    subgroups = read_subgroups(table.samples, by)
    if "subgroups" in takes:
        given["subgroups"] = subgroups
    if "cache_folder" in takes:
        given["cache_folder"] = None if state is None else state / KEPT / choice.name.replace(":", "-")
    if spec.reads == "answers":
        return AnswerEvaluator(table, catalogue.make_task(choice.name, **given), settings, subgroups)
    classifies = spec.reads == "features" and spec.truth == "labels"  # trust then needs prompts too
    prompts: Prompts = prompt_sets(registry, table) if classifies or "prompts" in takes else {}
    if "prompts" in takes:
        given["prompts"] = prompts
    if "findings" in takes:
        given["findings"] = findings = finding_sets(registry, table)
        prompts = {d: {f: [*p, *n] for f, (p, n) in names.items()} for d, names in findings.items()}
    if QUESTION in spec.metadata:
        prompts = _questions(table)
    found: dict[str, tuple[Sample, ...]] = {}
    for name, splits in (("training", SPLITS[:2]), ("calibration", SPLITS[1:2])):
        if name in takes:
            rows = np.sort(np.concatenate([_truth_rows(table, spec, settings, split) for split in splits]))
            kept = rows if skipped is None else rows[~skipped[rows]]
            given[name] = found[name] = tuple(table.samples[row] for row in kept)
    task = catalogue.make_task(choice.name, **given)
    return FeatureEvaluator(table, prompts, task, settings, spec, **found, subgroups=subgroups)


def _questions(table: SampleIndex) -> Prompts:
    """The questions of each domain as its prompts: teachers that lack one are not scored there."""
    found: dict[str, dict[str, str]] = {}
    for row in table.samples.naming(QUESTION):
        sample = table.samples[row]
        if text := question_of(sample):
            found.setdefault(sample.domain, {})[text] = text
    return {domain: {QUESTION: list(texts)} for domain, texts in found.items()}


def _truth_rows(table: SampleIndex, spec: TaskSpec, settings: Mapping[str, Any], split: Split) -> Rows:
    """The samples of a split that have what a task compares outputs with, and have it from no teacher."""
    rows = table.select(split=split, labeled=True if spec.truth == "labels" else None)
    rows = rows[~(table.text_of_teacher if spec.truth == "captions" else table.domain_of_teacher)[rows]]
    if spec.truth == "labels":
        return rows
    if spec.truth == "captions":
        return rows[[bool(table.texts[row].strip()) for row in rows]]
    if spec.truth == "findings":
        return np.intersect1d(rows, table.rows_with(FINDINGS))
    names = [str(settings.get(option, option)) for option in spec.metadata]
    return rows[[all(name in columns_of(table.samples[row]) for name in names) for row in rows]]


def _unsuitable(name: str, why: str, settings: Mapping[str, Any]) -> KdkitError:
    return KdkitError(
        "KD-EVAL-010",
        f"'{name}' {why}, so the task '{settings['task']}' cannot score it",
        fix="choose a student family whose task reads what this student gives: 'kdkit plugins --json' lists both",
    )
