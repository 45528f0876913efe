"""``kdkit versions`` and ``kdkit rollback``: the student's history."""

from __future__ import annotations

from typing import Annotated

import typer

from kdkit.cli import console


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    group = typer.Typer(invoke_without_command=True, help="List the versions of the student.")
    group.callback()(versions)
    group.command("show")(show)
    group.command("promote")(promote)
    app.add_typer(group, name="versions")
    app.command("rollback")(rollback)


def versions(context: typer.Context, folder: console.ProjectOption = None, json: console.JsonOption = False) -> None:
    """List the versions of the student, and the candidates that the guard refused."""
    if context.invoked_subcommand is None:
        console.emit(console.project(folder).versions(), json=json)


def show(
    name: Annotated[str | None, typer.Argument(help="Default: the current version.")] = None,
    folder: console.ProjectOption = None,
) -> None:
    """Print the lineage of a version as JSON: teachers, data, recipe, trust, retention, environment."""
    console.print_json(console.project(folder).lineage(name).to_json())


def promote(
    name: Annotated[str, typer.Argument(help="A refused candidate.")],
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
) -> None:
    """Make a refused candidate current."""
    console.emit(console.project(folder).promote(name), json=json)


def rollback(
    name: Annotated[str | None, typer.Argument(help="Default: the parent of the current version.")] = None,
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
) -> None:
    """Make an earlier version current again; nothing is deleted."""
    console.emit(console.project(folder).rollback(name), json=json)
