"""Recipes in files: found by name or path, and checked, with the recipes that their stages name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.yaml_model import Located, Place, read_mapping, read_model, validate_at
from kdkit.core.contracts import RecipeSpec
from kdkit.core.project.recipe import Recipe, changed_optimizer
from kdkit.core.project.registry.schema import Name, Part

if TYPE_CHECKING:
    from kdkit.core.plugin_system.discovery import Catalogue


@dataclass(frozen=True)
class RecipeFile:
    """The text of a recipe, and its path for messages."""

    origin: str
    text: str


class StagedFile(Part):
    """A file with stages, before the recipes that they name are read.

    A stage names a recipe; its other keys replace those of that recipe, keys of ``optimizer`` one by one. A stage that
    names none is a recipe of its own.
    """

    name: Name
    summary: str
    source: str = ""
    stages: Annotated[tuple[dict[str, Any], ...], Field(min_length=2)]


def recipe_file(name_or_path: str, catalogue: Catalogue, root: Path | str = ".") -> RecipeFile:
    """The file of a recipe, given by name or by path (relative to ``root``); see :func:`is_path`.

    Raises:
        KdkitError: unknown name, or no readable text file at the path.
    """
    if not is_path(name_or_path):
        spec = catalogue.spec(RecipeSpec, name_or_path)
        package, _, file = spec.resource.partition(":")
        resource = files(package) / file
        return RecipeFile(str(resource), resource.read_text(encoding="utf-8"))
    path = Path(root) / name_or_path
    try:
        return RecipeFile(name_or_path, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise KdkitError(
            "KD-PROJ-003",
            "this recipe cannot be read",
            where=str(path),
            why=str(error),
            fix="correct the path; 'kdkit recipes' lists recipes by name",
            code=ExitCode.MISSING,
        ) from None


def load_recipe(name_or_path: str, catalogue: Catalogue, root: Path | str = ".") -> Recipe:
    """Read and check a recipe.

    Args:
        name_or_path: a name of the catalogue, or the path of a YAML file.
        catalogue: knows the losses, aligners and trust policies.
        root: base of relative paths: the folder of ``registry.yaml``.

    Raises:
        KdkitError: an invalid key or an unknown name, with ``file:line``; stages in a stage.
    """
    recipe, located = read_recipe(recipe_file(name_or_path, catalogue, root), catalogue, root)
    for number, stage in enumerate(recipe.in_order):
        _require_known_names(stage, catalogue, located, ("stages", number) if recipe.stages else ())
    return recipe


def read_recipe(file: RecipeFile, catalogue: Catalogue, root: Path | str = ".") -> tuple[Recipe, Located]:
    """The recipe of a file; names of losses, aligners and policies may be unknown.

    Raises:
        KdkitError: an invalid key, with ``file:line``; a stage that names no recipe, or one with stages.
    """
    located = read_mapping(file.text, file.origin)
    if "stages" not in located.tree:
        return validate_at(Recipe, located.plain, located), located
    staged = validate_at(StagedFile, located.plain, located)
    stages = []
    for number, entry in enumerate(staged.stages):
        place: Place = ("stages", number)
        settings = _stage_settings(entry, located, place, catalogue, root)
        stages.append(validate_at(Recipe, settings, located, place))
    return validate_at(Recipe, {**dict(staged), "stages": tuple(stages)}, located), located


def stage_recipes(file: RecipeFile) -> tuple[str, ...]:
    """Names and paths of the recipes that its stages name.

    Raises:
        KdkitError: an invalid file.
    """
    if "stages" not in read_mapping(file.text, file.origin).tree:
        return ()
    staged, _ = read_model(StagedFile, file.text, file.origin)
    return tuple(str(entry["recipe"]) for entry in staged.stages if "recipe" in entry)


def is_path(name_or_path: str) -> bool:
    """Whether it contains a slash or ends in ``.yaml`` or ``.yml``."""
    return "/" in name_or_path or name_or_path.endswith((".yaml", ".yml"))


def _stage_settings(
    entry: Mapping[str, Any], located: Located, place: Place, catalogue: Catalogue, root: Path | str
) -> dict[str, Any]:
    """The keys of a stage: its own, and those of the recipe that it names."""
    if "stages" in entry:
        raise _stages_in_a_stage(located.where((*place, "stages")), "this stage has stages")
    own = {key: value for key, value in entry.items() if key != "recipe"}
    if "recipe" not in entry:
        return {"summary": "", **own}
    where = located.where((*place, "recipe"))
    try:
        file = recipe_file(str(entry["recipe"]), catalogue, root)
    except KdkitError as error:
        raise error.at(where) from None
    named = read_mapping(file.text, file.origin)
    if "stages" in named.tree:
        raise _stages_in_a_stage(where, f"recipe '{entry['recipe']}' has stages")
    base = validate_at(Recipe, named.plain, named)
    if isinstance(given := own.get("optimizer"), Mapping):
        own["optimizer"] = changed_optimizer(base.optimizer, given)
    return {**{key: value for key, value in dict(base).items() if key != "stages"}, **own}


def _stages_in_a_stage(where: str, why: str) -> KdkitError:
    return KdkitError(
        "KD-PROJ-360",
        "a stage cannot have stages of its own",
        where=where,
        why=why,
        fix="write its stages one by one into this list",
    )


def _require_known_names(recipe: Recipe, catalogue: Catalogue, located: Located, place: Place) -> None:
    for family, name, inside in _named(recipe):
        try:
            catalogue.get(family, name)
        except KdkitError as error:
            raise error.at(located.where((*place, *inside))) from None


def _named(recipe: Recipe) -> Iterator[tuple[str, str, Place]]:
    """(family, name, place) of the plugin objects of a recipe."""
    for number, loss in enumerate(recipe.losses):
        yield "loss", loss.name, ("losses", number, "name")
    if recipe.aligner:
        yield "aligner", recipe.aligner.name, ("aligner", "name")
    for key, part in (("previous", recipe.increment.previous), ("without_replay", recipe.increment.without_replay)):
        yield "loss", part.loss, ("increment", key, "loss")
    yield "policy", recipe.trust.policy, ("trust", "policy")
