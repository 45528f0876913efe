"""``kdkit export``: a version as a folder for stock libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdkit.cli import console


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("export")(export)


def export(
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The new folder.")],
    version: Annotated[str | None, typer.Argument(help="Default: the current version.")] = None,
    repo: Annotated[
        str | None, typer.Option("--repo", metavar="ORG/NAME", help="Write what 'kdkit push' would publish there.")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Whole weights of a student with adapters.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
) -> None:
    """Write a version as a folder that stock open_clip or transformers loads, without kdkit and without network.

    The library loads the folder in a process of its own and must reproduce the version's features or answers.
    """
    done = console.project(folder).export(to, version, repo=repo, merge=merge, overwrite=overwrite)
    console.emit(done, json=json)
