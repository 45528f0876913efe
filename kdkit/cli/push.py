"""``kdkit push``: a version as a repository on the Hub."""

from __future__ import annotations

from typing import Annotated

import typer

from kdkit.cli import console


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("push")(push)


def push(
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The model repository; created if missing.")],
    version: Annotated[str | None, typer.Option("--version", help="Default: the current version.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Visible to everybody (default: private).")] = False,
    pull_request: Annotated[bool, typer.Option("--pr", help="Open a pull request.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything; send nothing.")] = False,
    license: Annotated[
        str | None, typer.Option("--license", help="State a license, at least as strict as the teachers'.")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Whole weights of a student with adapters.")] = False,
    refused: Annotated[bool, typer.Option("--refused", help="Even if the guard refused the version.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also what people edited in the repository; by default that stays.")
    ] = False,
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
) -> None:
    """Publish a version on the Hugging Face Hub, with its card and lineage.

    Before anything is sent, the stock library (open_clip, transformers, PEFT) must reproduce the version's features
    or answers.
    """
    project = console.project(folder)
    if not dry_run:
        console.resumable()
    done = project.push(
        repo,
        version=version,
        public=public,
        pull_request=pull_request,
        dry_run=dry_run,
        license=license,
        merge=merge,
        refused=refused,
        replace=replace,
    )
    console.emit(done, json=json)
