"""What every recipe promises: a file that this kdkit understands, with parts that exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from kdkit.core.contracts import RecipeSpec
from kdkit.core.plugin_system.catalogue import Family
from kdkit.core.project.recipe import Recipe
from kdkit.core.project.recipe_file import load_recipe
from kdkit.testing.contract import Contract

WIDTHS = {"in_dim": 6, "out_dim": 4}


class RecipeContract(Contract):
    """Subclass with ``name``."""

    family: ClassVar[Family] = "recipe"

    def recipe(self) -> Recipe:
        """The recipe, read and checked."""
        return load_recipe(self.name, self.catalogue)

    def test_understood(self) -> None:
        """The file is a recipe, and the losses, the aligner and the policy that it names exist."""
        recipe, spec = self.recipe(), self.catalogue.spec(RecipeSpec, self.name)
        assert recipe.name == spec.name, f"expected 'name: {spec.name}' in the file, got 'name: {recipe.name}'"

    def test_parts_can_be_made(self) -> None:
        """Its losses, its aligner and its policy take the options that it gives them."""
        for family, name, options in _parts(self.recipe()):
            self.catalogue.make(family, name, **options)


def _parts(recipe: Recipe) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for stage in recipe.in_order:
        for loss in stage.losses:
            yield "loss", loss.name, loss.options
        if stage.increment.previous.weight:
            yield "loss", stage.increment.previous.loss, stage.increment.previous.options
        if stage.aligner:
            yield "aligner", stage.aligner.name, {**stage.aligner.options, **WIDTHS}
        yield "policy", stage.trust.policy, stage.trust.options
