"""``kdkit suites``: list them, and say which data sets are present."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdkit.cli import console


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    suites = typer.Typer(help="The benchmark suites: public data sets.", invoke_without_command=True)
    suites.callback()(list_suites)
    suites.command("show")(show)
    app.add_typer(suites, name="suites")


def list_suites(context: typer.Context, json: console.JsonOption = False) -> None:
    """List the benchmark suites for 'kdkit evaluate --suite'."""
    if context.invoked_subcommand is None:
        from kdkit.api import suites

        console.emit(suites.suites(), json=json)


def show(
    name: Annotated[str, typer.Argument(help="Of a suite.")],
    datasets: Annotated[list[str] | None, typer.Option("--dataset", help="Only this one; may be repeated.")] = None,
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the data sets.")] = Path("suites"),
    json: console.JsonOption = False,
) -> None:
    """Say which data sets are present, and of the others home, license, size and how to place them.

    Files are compared with the definition by hash or by number.
    """
    from kdkit.api import suites

    console.emit(suites.show_suite(name, datasets=datasets or (), data=data), json=json)
