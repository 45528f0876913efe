"""What a sweep varies: the project, the recipe or the training samples of each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kdkit.core.project.recipe import Recipe

if TYPE_CHECKING:
    from kdkit.core.data import SampleIndex
    from kdkit.core.distill.plan.inventory import TeachingInventory
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class Reranking:
    """Several sampled answers, of which a dual encoder of the registry takes the nearest to the image (SASG)."""

    teacher: str
    samples: int = 5


@dataclass(frozen=True)
class Variation:
    """One way to train the student.

    Attributes:
        project: with this variation's student and teachers.
        values: what differs from the project, for reports.
        without: domains whose training samples are left out.
        arrival: teachers in the order in which increments add them; empty for all at once.
        domains: to compare; empty for all.
        parts: of the question that it belongs to.
        against: name of the variation that it is compared with; by default the first one.
        reranking: how its answers are chosen; None for one answer.
        impossible: why it cannot be trained, if that is known before planning.
    """

    name: str
    project: Project
    recipe: Recipe
    values: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    arrival: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    against: str = ""
    reranking: Reranking | None = None
    impossible: str = ""


@dataclass(frozen=True)
class Question:
    """The variations of a sweep; the first one is the project as it is.

    Attributes:
        axis: the key that is the x axis of the picture; empty without one.
        notes: what a reader must know.
    """

    variations: tuple[Variation, ...]
    axis: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """What a question is made from.

    Attributes:
        recipe: of the project, with the registry's changes.
        arguments: of the command after the question.
        take: gives the inventory of a variation.
    """

    project: Project
    recipe: Recipe
    arguments: Sequence[str]
    index: SampleIndex
    take: Callable[[Variation], TeachingInventory]

    @property
    def inventory(self) -> TeachingInventory:
        """Of the project as it is."""
        return self.take(self.baseline)

    @property
    def baseline(self) -> Variation:
        """The project as it is."""
        return Variation("as it is", self.project, self.recipe)

    def with_teachers(self, names: Sequence[str]) -> Project:
        """The project with these teachers alone."""
        registry = self.project.registry
        teachers = {name: entry for name, entry in registry.teachers.items() if name in names}
        return self.project.with_registry(registry.model_copy(update={"teachers": teachers}))
