"""What the pulled student, its recipe and its teachers need, and no installed plugin provides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdkit.core.base.errors import KdkitError
from kdkit.core.plugin_system.catalogue import BUILT_IN, normal
from kdkit.core.project.lineage import Lineage
from kdkit.core.project.registry.lock import Lock
from kdkit.core.project.registry.pinned import NO_PROVIDER
from kdkit.core.project.registry.schema import Registry

if TYPE_CHECKING:
    from kdkit.core.plugin_system.catalogue import Catalogue


@dataclass(frozen=True)
class Lacking:
    """Something that no installed plugin provides.

    Attributes:
        what: such as ``student 'toy'``.
        plugins: ``distribution==version`` that has it; where that was not written down, all that the author had
            and that are not here.
    """

    what: str
    plugins: tuple[str, ...]

    def __str__(self) -> str:
        fix = (
            f"kdkit install {' '.join(self.plugins)}" if self.plugins else "its author did not say which plugin has it"
        )
        return f"{self.what} is provided by no installed plugin: {fix}"


def lacking_plugins(catalogue: Catalogue, lineage: Lineage, registry: Registry, lock: Lock) -> tuple[Lacking, ...]:
    """All of it, each name once."""
    here = {normal(record.distribution) for record in catalogue.records if record.status == "ok"} | {BUILT_IN}
    had = {normal(name): version for name, version in lineage.environment.plugins.items()}
    absent = tuple(f"{name}=={version}" for name, version in sorted(had.items()) if name not in here)
    found = {}
    for family, name, provider in dict.fromkeys(_needs(lineage, registry, lock)):
        try:
            catalogue.get(family, name)
        except KdkitError:
            owner, _, version = (provider or lock.providers.get(family, {}).get(name, "")).partition("@")
            version = version or had.get(normal(owner), "")
            known = owner and normal(owner) not in here
            exact = (f"{owner}=={version}" if version else owner,)
            found[family, name] = Lacking(f"{family} '{name}'", exact if known else absent)
    return tuple(found.values())


def _needs(lineage: Lineage, registry: Registry, lock: Lock) -> Iterator[tuple[str, str, str]]:
    """(family, name, ``distribution@version`` where that is known)."""
    yield "student", lineage.student.family, ""
    recipe = lineage.recipe
    for part in recipe.losses:
        yield "loss", part.name, ""
    if recipe.aligner:
        yield "aligner", recipe.aligner.name, ""
    yield "policy", (registry.trust.policy if registry.trust else recipe.trust.policy), ""
    for name, facts in lock.teachers.items():
        if name in registry.teachers:
            yield "loader", facts.loader, ""
            if facts.provider != NO_PROVIDER:
                yield "teacher", name, facts.provider
