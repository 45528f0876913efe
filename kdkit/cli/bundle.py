"""``kdkit bundle`` and ``kdkit unbundle``: a project for a place without network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdkit.cli import console


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("bundle")(bundle)
    app.command("unbundle")(unbundle)


def bundle(
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The archive to write, such as project.tar.")],
    parts: Annotated[
        str, typer.Option("--with", metavar="PARTS", help="What it contains besides the registry.")
    ] = "teachers,features,versions",
    all_versions: Annotated[
        bool, typer.Option("--all-versions", help="Every version of the student, not only the current one.")
    ] = False,
    wheels: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder of wheels ('pip download') to include.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the contents; write nothing.")] = False,
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
) -> None:
    """Write the project as one archive with the hash of every file. Images and captions stay out."""
    chosen = [part.strip() for part in parts.split(",") if part.strip()]
    project = console.project(folder)
    console.emit(project.bundle(to, parts=chosen, all_versions=all_versions, wheels=wheels, dry_run=dry_run), json=json)


def unbundle(
    archive: Annotated[Path, typer.Argument(metavar="FILE", help="An archive that 'kdkit bundle' wrote.")],
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="The new folder (default: FILE without its suffix).")
    ] = None,
    max_size: Annotated[float | None, typer.Option(metavar="GB", min=0, help="Refuse a larger project.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every byte; write nothing.")] = False,
    json: console.JsonOption = False,
) -> None:
    """Make a project from a bundle, if every file matches the manifest; otherwise nothing is left."""
    from kdkit.api.project import Project

    done = Project.unbundle(archive, to=to, max_size=max_size, dry_run=dry_run, reporter=console.reporter())
    console.emit(done, json=json)
