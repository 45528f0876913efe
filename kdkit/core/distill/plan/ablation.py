"""A plan without one source of knowledge: leave-one-source-out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from kdkit.core.contracts import CAPTIONS, LossSpec
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.plan.types import Plan

if TYPE_CHECKING:
    from kdkit.core.plugin_system.catalogue import Catalogue


@dataclass(frozen=True)
class KnowledgeSource:
    """What a student learns from: a teacher, or the samples' own texts.

    Attributes:
        name: of the teacher; ``captions`` or ``answers`` of the texts.
    """

    name: str
    kind: Literal["teacher", "texts"]

    @property
    def row(self) -> str:
        """Its name in trust tables."""
        return self.name if self.kind == "teacher" else CAPTIONS


def find_sources(plan: Plan, inventory: TeachingInventory, texts: str) -> tuple[KnowledgeSource, ...]:
    """The sources of a plan: teachers that teach a sample, then the texts where a loss learns from them.

    Args:
        texts: name of the texts: ``captions`` or ``answers``.
    """
    sources = [KnowledgeSource(teacher.name, "teacher") for teacher in plan.teachers if teacher.samples]
    if inventory.learns_alone and (inventory.caption_targets().weight[plan.samples] > 0).any():
        sources.append(KnowledgeSource(texts, "texts"))
    return tuple(sources)


def without_source(
    plan: Plan, inventory: TeachingInventory, source: KnowledgeSource, catalogue: Catalogue
) -> tuple[Plan, TeachingInventory]:
    """The same batches and steps without one source.

    Trust is weighed as if the source did not exist: the next best teacher of a domain takes its place. Without the
    texts, losses that read no teacher are left out too. Samples that nothing teaches any more keep their places in
    batches. The digest stays that of ``plan``.
    """
    left = inventory.without({source.row})
    used = plan.samples
    teachers = tuple(
        replace(teacher, admitted=left.admitted(teacher.name), samples=int(left.taught(teacher.name)[used].sum()))
        for teacher in plan.teachers
    )
    recipe = plan.recipe
    if source.kind == "texts":
        losses = tuple(loss for loss in recipe.losses if catalogue.spec(LossSpec, loss.name).signals)
        recipe = recipe.model_copy(update={"losses": losses})
    return replace(plan, teachers=teachers, captions=left.caption_weights, recipe=recipe), left


def shortened(plan: Plan, length: float) -> Plan:
    """The same plan with a share of its steps.

    Args:
        length: in (0, 1].
    """
    steps = max(1, math.ceil(length * plan.settings.steps))
    return replace(plan, settings=replace(plan.settings, steps=steps))
