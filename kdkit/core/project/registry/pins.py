"""Which distribution each name of a project comes from, so that it cannot change unnoticed.

A short name belongs to whoever provides it at the moment: a plugin may be replaced by another one with the same
names, and a newer kdkit may bring a built-in of that name. ``registry.lock`` therefore pins the provider of every
name that ``registry.yaml`` and its recipe use, when teachers are locked and when a student is taught.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.yaml_model import read_model
from kdkit.core.contracts import StudentSpec
from kdkit.core.project.recipe import Recipe, is_path, recipe_file
from kdkit.core.project.registry.lock import Lock
from kdkit.core.project.registry.pinned import pinned

if TYPE_CHECKING:
    from kdkit.core.project.project import Project


def unpinned(project: Project, names: Iterable[str]) -> Project:
    """The project with ``names`` taken from the plugins that provide them now, whatever the lock says.

    Raises:
        KdkitError: nobody provides a name that the project uses and has pinned, or several do.
    """
    wanted = frozenset(names)
    if not wanted:
        return project
    free = project.with_catalogue(pinned(project.catalogue, project.lock, wanted))
    for family, name in used_names(free, project.lock, free.registry.recipe):
        if name in wanted and name in project.lock.providers.get(family, {}):
            free.catalogue.get(family, name)
    return free


def with_pins(project: Project, lock: Lock, recipe: str | None = None) -> Lock:
    """``lock`` with the present provider of every name that the project uses; earlier pins stay.

    Names that cannot be resolved are left to the command that uses them.

    Args:
        recipe: name or path; by default the registry's.
    """
    catalogue = project.catalogue
    providers = {family: dict(names) for family, names in lock.providers.items()}
    for family, name in used_names(project, lock, recipe or project.registry.recipe):
        if ":" in name:  # says itself where it comes from
            continue
        try:
            provider = catalogue.get(family, name).provider
        except KdkitError:
            continue
        providers.setdefault(family, {})[name] = provider
    return lock.model_copy(update={"providers": providers})


def pin_names(project: Project, recipe: str | None = None) -> None:
    """Write the pins of a project into ``registry.lock``, if any is new; see :func:`with_pins`."""
    now = with_pins(project, project.lock, recipe)
    if now != project.lock:
        now.save(project.lock_path)


def moved_names(project: Project, lock: Lock) -> Iterator[KdkitError]:
    """What is wrong with the names that the project uses and has pinned."""
    for family, name in dict.fromkeys(used_names(project, lock, project.registry.recipe)):
        if name in lock.providers.get(family, {}):
            try:
                project.catalogue.get(family, name)
            except KdkitError as error:
                yield error


def used_names(project: Project, lock: Lock, recipe: str) -> Iterator[tuple[str, str]]:
    """(family, name) of everything that ``registry.yaml`` and the recipe name, teachers excepted."""
    registry = project.registry
    yield "student", registry.student.family
    with suppress(KdkitError):
        yield "task", project.catalogue.spec(StudentSpec, registry.student.family).task
    yield from (("source", entry.source) for entry in registry.data)
    yield from (("loader", facts.loader) for facts in lock.teachers.values())
    yield from (("loader", entry.loader) for entry in registry.teachers.values() if entry.loader)
    if registry.trust:
        yield "policy", registry.trust.policy
    if not is_path(recipe):
        yield "recipe", recipe
    try:
        file = recipe_file(recipe, project.catalogue, project.root)
        parts, _ = read_model(Recipe, file.text, file.origin)
    except KdkitError:
        return
    yield from _names_of(parts)


def _names_of(recipe: Recipe) -> Iterator[tuple[str, str]]:
    yield from (("loss", part.name) for part in recipe.losses)
    yield "loss", recipe.increment.previous.loss
    yield "loss", recipe.increment.without_replay.loss
    yield "policy", recipe.trust.policy
    if recipe.aligner:
        yield "aligner", recipe.aligner.name
