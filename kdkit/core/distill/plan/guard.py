"""The check, before any training, that the guard can be applied after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import TaskSpec
from kdkit.core.evaluation.evaluator import FeatureEvaluator, TaskChoice, make_evaluator
from kdkit.core.evaluation.sampling import require_separate_groups
from kdkit.core.evaluation.subgroups import read_subgroups

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.project.project import Project


def check_guard(project: Project, index: SampleIndex) -> None:
    """Raises: KdkitError for an unknown task or column, a domain in which the task has no calibration samples to
    score, or a group (patient) in both splits for a task that fits on the training split."""
    guard = project.registry.guard
    read_subgroups(index.samples, list(guard.by))
    for task, targets in guard.targets.items():
        _refuse_network(project, task, targets[0].name)
        evaluator = make_evaluator(project.registry, project.catalogue, index, TaskChoice(task))
        able = evaluator.measurable(evaluator.rows("calibration"))
        if isinstance(evaluator, FeatureEvaluator):
            fitted = [sample for sample in evaluator.training if sample.domain in able]
            require_separate_groups(
                [sample for sample in fitted if sample.split == "train"],
                [sample for sample in fitted if sample.split == "calibration"],
            )
        for target in targets:
            if target.domain not in able:
                part, _, domain = target.domain.rpartition("/")
                whole = f"{task}:{target.metric}/{domain}" if target.metric and domain in able else ""
                raise KdkitError(
                    "KD-DIST-230",
                    f"the guard cannot measure '{target.name}'",
                    where=f"registry.yaml, guard.{target.name}",
                    why=f"the task '{task}' can score these domains of the calibration split: "
                    f"{', '.join(sorted(able)) or 'none'}",
                    fix=f"the guard compares no part of a metric, such as '{part}': write '{whole}'"
                    if whole
                    else did_you_mean(target.domain, sorted(able)),
                )


def _refuse_network(project: Project, task: str, target: str) -> None:
    """Raises: KdkitError for a task that asks a server, such as a judge."""
    if project.catalogue.spec(TaskSpec, task).asks_network:
        raise KdkitError(
            "KD-DIST-610",
            f"the guard does not take the task '{task}'",
            where=f"registry.yaml, guard.{target}",
            why="it asks a model behind an address, and whether a version is promoted must not depend on a server",
            fix=f"remove this line, and run 'kdkit evaluate --task {task}' on the version",
        )
