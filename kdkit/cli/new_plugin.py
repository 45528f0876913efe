"""``kdkit new-plugin``: a working package to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdkit.cli import console

KIND_HELP = "teacher, student, aligner, loss, rope, source, policy, task, recipe, suite or loader."


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("new-plugin")(new_plugin)


def new_plugin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the plugin; 'kdkit-' may precede it.")],
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help=KIND_HELP)],
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="The new folder (default: kdkit-NAME, here).")
    ] = None,
    json: console.JsonOption = False,
) -> None:
    """Write a plugin package that installs, works and passes its own tests; edit it into yours."""
    from kdkit.api import plugins

    console.emit(plugins.new_plugin(name, kind, to=to), json=json)
