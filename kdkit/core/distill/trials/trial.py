"""One trial: a training from a plan or in several steps, its evaluations, and what identifies both.

A killed trial continues from its newest checkpoint. A finished one leaves its evaluations; its student is discarded,
unless it is kept for further evaluations.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import nn

from kdkit.core.base.atomic import draft_beside
from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Reporter, Split
from kdkit.core.distill.judge import evaluate_student
from kdkit.core.distill.loop.accelerator import make_accelerator
from kdkit.core.distill.model.student import StudentBuilder
from kdkit.core.distill.options import Options
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.plan.types import Plan
from kdkit.core.distill.prepare import Prepared
from kdkit.core.distill.stages import train_stages
from kdkit.core.evaluation.evaluator import FeatureEvaluator, make_evaluator
from kdkit.core.evaluation.kept_evaluations import KeptEvaluations
from kdkit.core.evaluation.scores import Evaluation

if TYPE_CHECKING:
    from accelerate import Accelerator

    from kdkit.core.project.project import Project

KEPT = "kept"
"""In the folder of a finished trial whose student is kept."""


@dataclass(frozen=True)
class TrialOptions:
    """How to run trials; only ``precision`` changes a result.

    Attributes:
        keep: leave the newest checkpoint of a finished trial, so that it can be evaluated otherwise without training.
    """

    cpu: bool = False
    precision: str = "no"
    checkpoint_seconds: float = 60.0
    keep: bool = False

    def of_a_run(self) -> Options:
        """The same for a run."""
        return Options(cpu=self.cpu, precision=self.precision, checkpoint_seconds=self.checkpoint_seconds)

    def accelerator(self, command: str) -> Accelerator:
        """Of this process.

        Raises:
            KdkitError: a run of several processes.
        """
        accelerator = make_accelerator(self.precision, cpu=self.cpu)
        if accelerator.num_processes > 1:
            raise KdkitError(
                "KD-DIST-082",
                f"'{command}' runs in one process, not in {accelerator.num_processes}",
                fix="start it without torchrun or 'accelerate launch'",
            )
        return accelerator


class Training(Protocol):
    """What makes a trial's student."""

    @property
    def steps(self) -> int: ...

    def train(self, folder: Path, accelerator: Accelerator, options: TrialOptions, reporter: Reporter) -> nn.Module:
        """Train, from the newest checkpoint in ``folder`` if there is one."""


@dataclass(frozen=True)
class PlannedTraining:
    """A training from scratch as it was planned, with the stages of its recipe.

    Attributes:
        project: with the student and the teachers of the plan.
        stages: at least one, the last one last.
    """

    project: Project
    stages: tuple[tuple[Plan, TeachingInventory], ...]

    @property
    def plan(self) -> Plan:
        """Of the last stage."""
        return self.stages[-1][0]

    @property
    def inventory(self) -> TeachingInventory:
        """Of the last stage."""
        return self.stages[-1][1]

    @property
    def steps(self) -> int:
        return sum(plan.settings.steps for plan, _ in self.stages)

    def prepared(self) -> Prepared:
        """For the cost estimate and the training."""
        builder = StudentBuilder.of(self.project, None, self.plan.settings.seed)
        made = [Prepared(plan, inventory, builder) for plan, inventory in self.stages]
        return replace(made[-1], earlier=tuple(made[:-1]))

    def train(self, folder: Path, accelerator: Accelerator, options: TrialOptions, reporter: Reporter) -> nn.Module:
        return train_stages(
            self.project, self.prepared(), options.of_a_run(), accelerator, folder, reporter, keep_open=True
        ).task.student


@dataclass(frozen=True)
class Measurement:
    """One evaluation of a trial's student.

    Attributes:
        key: digest of everything that decides it.
        evaluate: (student, folder for temporary files, reporter) -> evaluation.
    """

    key: str
    evaluate: Callable[[nn.Module, Path, Reporter], Evaluation]


@dataclass(frozen=True)
class Trial:
    """One training and its evaluations.

    Attributes:
        title: for messages.
        key: digest of everything that decides the student.
    """

    title: str
    seed: int
    key: str
    training: Training
    measurements: tuple[Measurement, ...]

    def finished(self, kept: KeptEvaluations) -> bool:
        """Whether all evaluations are there."""
        return all(kept.has(one.key) for one in self.measurements)

    def finish(
        self, kept: KeptEvaluations, folder: Path, accelerator: Accelerator, options: TrialOptions, reporter: Reporter
    ) -> None:
        """Train and evaluate, from the newest checkpoint in ``folder``."""
        student = self.training.train(folder, accelerator, options, reporter)
        for one in self.measurements:
            if not kept.has(one.key):
                kept.save(one.key, one.evaluate(student, folder, reporter))
        if options.keep:
            (folder / KEPT).touch()
        else:
            discard(folder)


def discard(folder: Path) -> None:
    """Remove the folder of a trial in one step, or in none: half a checkpoint could not be continued."""
    if folder.is_dir():
        with draft_beside(folder) as gone:
            os.replace(folder, gone)


def measure_student(
    project: Project, inventory: TeachingInventory, split: Split, key: str, evaluated: str
) -> Measurement:
    """The evaluation of a student by the task of its family.

    Args:
        inventory: names the samples.
        key: of the trial.
        evaluated: what :func:`evaluation_digest` gives for them.
    """

    def evaluate(student: nn.Module, _folder: Path, reporter: Reporter) -> Evaluation:
        return evaluate_student(project, inventory, student, reporter, split=split, teachers=False)

    return Measurement(digest_of([key, evaluated]), evaluate)


def evaluation_digest(project: Project, inventory: TeachingInventory, split: Split) -> str:
    """SHA-256 of what decides a student's scores beside its weights: task, prompts, samples of the split."""
    evaluator = make_evaluator(project.registry, project.catalogue, inventory.index)
    rows = np.intersect1d(evaluator.rows(split), inventory.rows(split))
    samples = [(inventory.index.samples[row], int(inventory.index.digests[row])) for row in rows]
    return digest_of(
        [
            split,
            dict(evaluator.settings),
            evaluator.prompts if isinstance(evaluator, FeatureEvaluator) else None,
            [[sample.id, sample.domain, sample.label, sample.text, digest] for sample, digest in samples],
        ]
    )


def digest_of(facts: Any) -> str:
    """SHA-256 of plain data.

    Example:
        >>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def pending_steps(trials: Sequence[Trial], kept: KeptEvaluations) -> int:
    """Steps of the trials that are not finished."""
    return sum(trial.training.steps for trial in trials if not trial.finished(kept))
