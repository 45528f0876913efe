"""Which losses of a recipe can read which teacher: not every teacher gives every signal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import IMAGE, TEXT, LossSpec
from kdkit.core.distill.plan.types import PlannedTeacher

if TYPE_CHECKING:
    from kdkit.core.features import Column
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.project.recipe import Recipe


def losses_with_teachers(recipe: Recipe, catalogue: Catalogue) -> tuple[LossSpec, ...]:
    """The recipe's losses that read a teacher, each once."""
    names = dict.fromkeys(part.name for part in recipe.losses)
    return tuple(spec for spec in (catalogue.spec(LossSpec, name) for name in names) if spec.signals)


def reads_teacher(spec: LossSpec, given: Collection[str]) -> bool:
    """Whether a loss can learn from a teacher with the signals ``given``."""
    if spec.needs_all_signals:
        return set(spec.signals) <= set(given)
    return bool(set(spec.signals) & set(given))


def skipping_losses(recipe: Recipe, catalogue: Catalogue, given: Collection[str]) -> tuple[str, ...]:
    """Names of the losses that read teachers, but not one with the signals ``given``."""
    return tuple(spec.name for spec in losses_with_teachers(recipe, catalogue) if not reads_teacher(spec, given))


def with_skipping_losses(
    teachers: Sequence[PlannedTeacher], columns: Mapping[str, Column], recipe: Recipe, catalogue: Catalogue
) -> tuple[PlannedTeacher, ...]:
    """The teachers of a plan, each with the losses that skip it."""
    given = {teacher.name: [spec.name for spec in columns[teacher.name].signals] for teacher in teachers}
    return tuple(
        replace(teacher, skipping_losses=skipping_losses(recipe, catalogue, given[teacher.name]))
        for teacher in teachers
    )


def no_signal_error(name: str, given: Collection[str], recipe: Recipe, catalogue: Catalogue) -> KdkitError:
    """The error about a teacher that no loss of the recipe can read."""
    reads = [
        f"{spec.name} {'needs each of' if spec.needs_all_signals else 'reads'} {', '.join(spec.signals)}"
        for spec in losses_with_teachers(recipe, catalogue)
    ]
    return KdkitError(
        "KD-DIST-019",
        f"no loss of the recipe can use teacher '{name}', which gives {', '.join(given)}",
        where=f"recipe {recipe.name}",
        why="; ".join(reads),
        fix="add the loss 'fd', which learns from image features alone, or from text features alone"
        if set(given) in ({IMAGE}, {TEXT})
        else "choose a recipe and a student of the teacher's kind: 'kdkit recipes'; if it is to choose among answers "
        "alone, write 'domains: []' into its entry",
    )
