"""The inventory of a run, after checks of what recipe, teachers and student can do together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kdkit.core.contracts import Reporter, Split, StudentSpec, TaskSpec
from kdkit.core.data import SampleIndex
from kdkit.core.distill.model.student import StudentBuilder
from kdkit.core.distill.on_policy.plan import require_on_policy
from kdkit.core.distill.plan.checks import require_same_tokens, require_teachable, token_losses
from kdkit.core.distill.plan.compatibility import (
    require_compatible,
    require_needed_signals,
    require_outputs,
    require_packing,
    require_protection,
)
from kdkit.core.distill.plan.inventory import TeachingInventory, domain_limits, take_inventory
from kdkit.core.distill.plan.token_temperatures import check_token_temperatures
from kdkit.core.evaluation.evaluator import make_evaluator
from kdkit.core.project.recipe import Recipe

if TYPE_CHECKING:
    from kdkit.core.project.project import Project
    from kdkit.core.project.registry.schema import Registry
    from kdkit.core.teachers import OpenTeacher


def checked_inventory(
    project: Project,
    recipe: Recipe,
    student: StudentBuilder,
    index: SampleIndex,
    reporter: Reporter,
    device: str,
    before: Callable[[], object] | None = None,
) -> TeachingInventory:
    """The inventory of a run, after checks of what recipe, teachers and student can do together.

    Args:
        before: called before an extraction.

    Raises:
        KdkitError: see :func:`~kdkit.core.distill.plan.inventory.take_inventory`; what does not fit.
    """
    compared = list[bool]()

    def compare() -> None:
        check_recipe(project, recipe, student, index, reporter)
        compared.append(True)

    def before_extraction(teachers: Sequence[OpenTeacher]) -> None:
        require_outputs(recipe, student)
        _check_answers(project.registry, recipe, student, index, teachers, reporter)
        compare()
        if before is not None:
            before()

    inventory = take_inventory(project, recipe, index, before_extraction, device=device, reporter=reporter)
    if not compared:  # nothing was extracted
        compare()
    return inventory


def check_recipe(
    project: Project, recipe: Recipe, student: StudentBuilder, index: SampleIndex, reporter: Reporter
) -> None:
    """Compare a recipe with student, samples and locked teachers, as far as that needs no features.

    Raises:
        KdkitError: what does not fit.
    """
    registry, lock = project.registry, project.lock
    teaching = [name for name, entry in registry.teachers.items() if entry.may_teach]
    locked = {name: lock.teachers[name] for name in teaching if name in lock.teachers}
    train = index.samples.take(index.select(split="train"))
    require_packing(recipe, student)
    require_protection(recipe, student, index)
    require_needed_signals(recipe, project.catalogue, (signal for facts in locked.values() for signal in facts.signals))
    check_token_temperatures(recipe, project.catalogue, locked, reporter)
    require_on_policy(recipe, project.catalogue, registry, locked)
    require_compatible(recipe, student, locked, train, domain_limits(registry), reporter)


def measurable_domains(project: Project, inventory: TeachingInventory, split: Split = "calibration") -> set[str]:
    """Domains that a split can measure."""
    evaluator = make_evaluator(project.registry, project.catalogue, inventory.index)
    return evaluator.measurable(np.intersect1d(evaluator.rows(split), inventory.rows(split)))


def _check_answers(
    registry: Registry,
    recipe: Recipe,
    student: StudentBuilder,
    index: SampleIndex,
    teachers: Sequence[OpenTeacher],
    reporter: Reporter,
) -> None:
    """Check the training answers against a generating student and its teachers, before these compute signals."""
    catalogue = student.catalogue
    family = catalogue.spec(StudentSpec, registry.student.family)
    if catalogue.spec(TaskSpec, family.task).reads != "answers":
        return
    train = index.select(split="train")
    answered = index.samples.take(train[~index.unanswered[train]])
    require_teachable(student.student, answered)
    losses = token_losses(recipe, catalogue)
    require_same_tokens(student.student, teachers, answered, domain_limits(registry), losses, reporter)
