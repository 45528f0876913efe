"""``kdkit pull``: a published student as a project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdkit.cli import console


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("pull")(pull)


def pull(
    repository: Annotated[str, typer.Argument(metavar="ORG/NAME", help="A student that 'kdkit push' published.")],
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="The new folder (default: NAME).")] = None,
    revision: Annotated[str, typer.Option(metavar="R", help="Branch, tag or commit.")] = "main",
    features: Annotated[
        str | None, typer.Option(metavar="ORG/DATASET", help="Columns of its teachers, from 'kdkit features push'.")
    ] = None,
    json: console.JsonOption = False,
) -> None:
    """Create a project from a published student.

    Every file is compared with its published hash. Add your data and teachers, then run 'kdkit distill --incremental'.
    """
    from kdkit.api.project import Project

    done = Project.pull(repository, to=to, revision=revision, features=features, reporter=console.reporter())
    console.emit(done, json=json)
