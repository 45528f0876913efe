"""``kdkit data check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdkit.cli import console
from kdkit.core.base.errors import ExitCode


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    group = typer.Typer(help="The samples of the project.", no_args_is_help=True)
    group.command("check")(check)
    app.add_typer(group, name="data")


def check(
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Unreadable images are no problem.")
    ] = False,
    near_duplicates: Annotated[
        int,
        typer.Option(
            min=-1,
            max=255,
            help="Largest distance of pictures of different splits that count as copies, in bits of 255; -1: off.",
        ),
    ] = 24,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with pictures and histograms to this file.", dir_okay=False)
    ] = None,
) -> None:
    """Count domains and classes; find what is unreadable, skipped, duplicated, leaked or contradictory.

    Exits with 1 if there is a problem.
    """
    report = console.project(folder).check_data(
        skip_unreadable=skip_unreadable, near_duplicates=near_duplicates, html=html
    )
    console.emit(report, json=json)
    if report.problems:
        raise typer.Exit(ExitCode.FOUND)
