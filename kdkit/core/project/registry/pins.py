"""Pins: ``registry.lock`` records the distribution of every name that ``registry.yaml`` and its recipe use.

Otherwise a name could change its meaning unnoticed: another plugin may provide the same name, or a newer kdkit a
built-in of that name. Names are pinned when teachers are locked and when a student is trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import StudentSpec
from kdkit.core.project.recipe import Recipe
from kdkit.core.project.recipe_file import is_path, read_recipe, recipe_file, stage_recipes
from kdkit.core.project.registry.lock import Lock
from kdkit.core.project.registry.pinned import pinned

if TYPE_CHECKING:
    from kdkit.core.project.project import Project


def unpinned(project: Project, names: Iterable[str]) -> Project:
    """The project without the pins of ``names``.

    Raises:
        KdkitError: no plugin, or several, provide a name that the project uses and has pinned.
    """
    wanted = frozenset(names)
    if not wanted:
        return project
    free = project.with_catalogue(pinned(project.catalogue, project.lock, wanted))
    for family, name in used_names(free, project.lock, free.registry.recipe):
        if name in wanted and name in project.lock.providers.get(family, {}):
            free.catalogue.get(family, name)
    return free


def pin_names(project: Project, recipe: str | None = None) -> None:
    """Write the present provider of every name that the project uses into ``registry.lock``; earlier pins stay.

    Args:
        project: to pin. Names that cannot be resolved are skipped: the command that uses them reports them.
        recipe: name or path; by default the registry's.
    """
    lock = project.lock
    providers = {family: dict(names) for family, names in lock.providers.items()}
    for family, name in used_names(project, lock, recipe or project.registry.recipe):
        if ":" not in name:  # a qualified name needs no pin
            with suppress(KdkitError):
                providers.setdefault(family, {})[name] = project.catalogue.get(family, name).provider
    now = lock.model_copy(update={"providers": {family: names for family, names in providers.items() if names}})
    if now != lock:
        now.save(project.lock_path)


def moved_names(project: Project, lock: Lock) -> Iterator[KdkitError]:
    """An error for each pinned name that its distribution no longer provides."""
    for family, name in dict.fromkeys(used_names(project, lock, project.registry.recipe)):
        if name in lock.providers.get(family, {}):
            try:
                project.catalogue.get(family, name)
            except KdkitError as error:
                yield error


def used_names(project: Project, lock: Lock, recipe: str) -> Iterator[tuple[str, str]]:
    """(family, name) of all names in ``registry.yaml`` and the recipe, except teachers."""
    registry = project.registry
    yield "student", registry.student.family
    with suppress(KdkitError):
        family = project.catalogue.spec(StudentSpec, registry.student.family)
        yield from (("task", name) for name in (family.task, family.task_without_labels) if name)
        for key, kind in family.names.items():
            value = registry.student.config.get(key)
            name = value.get("name") if isinstance(value, Mapping) else value
            if isinstance(name, str):
                yield kind, name
    yield from (("source", entry.source) for entry in registry.data)
    yield from (("loader", facts.loader) for facts in lock.teachers.values())
    yield from (("loader", entry.loader) for entry in registry.teachers.values() if entry.loader)
    if registry.trust and registry.trust.policy:
        yield "policy", registry.trust.policy
    if not is_path(recipe):
        yield "recipe", recipe
    try:
        file = recipe_file(recipe, project.catalogue, project.root)
        yield from (("recipe", name) for name in stage_recipes(file) if not is_path(name))
        parts, _ = read_recipe(file, project.catalogue, project.root)
    except KdkitError:
        return
    yield from names_of(parts)


def names_of(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(family, name) of the parts of a recipe, of all its stages."""
    for stage in recipe.in_order:
        yield from (("loss", part.name) for part in stage.losses)
        yield "loss", stage.increment.previous.loss
        yield "loss", stage.increment.without_replay.loss
        yield "policy", stage.trust.policy
        if stage.aligner:
            yield "aligner", stage.aligner.name
