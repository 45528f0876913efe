"""``kdkit recipes``: list them, print one."""

from __future__ import annotations

from typing import Annotated

import typer

from kdkit.cli import console


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    recipes = typer.Typer(help="The recipes: complete ways to distill.", invoke_without_command=True)
    recipes.callback()(list_recipes)
    recipes.command("show")(show)
    app.add_typer(recipes, name="recipes")


def list_recipes(context: typer.Context, json: console.JsonOption = False) -> None:
    """List the recipes that registry.yaml can name."""
    if context.invoked_subcommand is None:
        from kdkit.api import plugins

        console.emit(plugins.recipes(), json=json)


def show(
    name: Annotated[str, typer.Argument(help="A recipe's name, or the path of a YAML file.")],
    json: console.JsonOption = False,
) -> None:
    """Check and print a recipe; '> mine.yaml' copies it, 'recipe: mine.yaml' in registry.yaml uses the copy.

    In the folder of a project, names come from the plugins that its registry.lock names.
    """
    from kdkit.api import plugins

    console.emit(plugins.show_recipe(name), json=json)
