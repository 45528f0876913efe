"""``kdkit recipes``: which there are, and the text of one."""

from __future__ import annotations

from typing import Annotated

import typer

from kdkit.cli import console


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    recipes = typer.Typer(help="The recipes: complete ways to distil.", invoke_without_command=True)
    recipes.callback()(list_recipes)
    recipes.command("show")(show)
    app.add_typer(recipes, name="recipes")


def list_recipes(context: typer.Context, json: console.JsonOption = False) -> None:
    """List the recipes that can be named in registry.yaml."""
    if context.invoked_subcommand:
        return
    from kdkit.core.plugin_system.discovery import load_catalogue

    entries = load_catalogue().entries("recipe")
    data = [{"name": e.spec.name, "summary": e.spec.summary, "provider": e.provider} for e in entries]
    rows = [list(row.values()) for row in data]
    console.emit(data, json=json, text=lambda: console.table(["name", "summary", "provider"], rows))


def show(
    name: Annotated[str, typer.Argument(help="A recipe's name, or the path of a YAML file.")],
    json: console.JsonOption = False,
) -> None:
    """Print a recipe; '> mine.yaml' copies it, and 'recipe: mine.yaml' in registry.yaml uses the copy.

    A file is checked first, so that this also tells what is wrong with a recipe of one's own. Inside a project names
    mean what they mean there.
    """
    from kdkit.core.project.project import Project
    from kdkit.core.project.recipe import load_recipe, recipe_file

    catalogue = Project.catalogue_at()
    recipe = load_recipe(name, catalogue)
    text = recipe_file(name, catalogue).text
    console.emit(recipe.model_dump(mode="json"), json=json, text=text.rstrip("\n"))
