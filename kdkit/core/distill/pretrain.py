"""``kdkit pretrain``: a run from scratch on the samples alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdkit.core.base.errors import KdkitError
from kdkit.core.project.recipe import signals_read
from kdkit.core.project.recipe_file import load_recipe

if TYPE_CHECKING:
    from kdkit.core.project.project import Project


def require_no_teacher(project: Project, name_or_path: str) -> None:
    """Check the recipe of a pretraining.

    Raises:
        KdkitError: one of its losses reads a teacher.
    """
    recipe = load_recipe(name_or_path, project.catalogue, project.root)
    reading = [stage.name for stage in recipe.in_order if signals_read(stage, project.catalogue)]
    if reading:
        raise KdkitError(
            "KD-DIST-364",
            f"recipe {reading[0]} reads teachers, and a pretraining has none",
            where="--recipe",
            fix="name a recipe such as 'clip' or 'captions'; or run 'kdkit distill' with this one",
        )
