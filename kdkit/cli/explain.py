"""``kdkit explain``."""

from __future__ import annotations

from typing import Annotated

import typer

from kdkit.cli import console


def register(app: typer.Typer) -> None:
    """Attach the command."""
    app.command()(explain)


def explain(
    version: Annotated[
        str | None, typer.Argument(help="A version or a refused candidate (default: the current version).")
    ] = None,
    length: Annotated[float, typer.Option(metavar="SHARE", help="Of the recipe's steps, above 0 and up to 1.")] = 0.25,
    seeds: Annotated[int, typer.Option(metavar="N", help="Runs per source; their outcomes are averaged.")] = 3,
    domains: Annotated[list[str] | None, typer.Option("--domain", help="Only this domain; may be repeated.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print sources, runs and time; train nothing.")] = False,
    cpu: Annotated[bool, typer.Option("--cpu", help="Use the CPU even if there is a GPU.")] = False,
    checkpoint_every: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.0, help="Seconds between checkpoints.")
    ] = 60.0,
    json: console.JsonOption = False,
    folder: console.ProjectOption = None,
) -> None:
    """Show what the student would be without each of its sources: teachers, captions.

    Short runs from scratch, one with all sources and one without each, are compared on the calibration split. They
    make no version. An interrupted command resumes when it is repeated; a finished one trains nothing again.
    """
    project = console.project(folder)
    console.resumable()
    wanted = domains or ()
    if dry_run:
        plan = project.plan_explanation(version, length=length, seeds=seeds, domains=wanted, cpu=cpu)
        console.emit(plan, json=json)
        return
    found = project.explain(
        version, length=length, seeds=seeds, domains=wanted, cpu=cpu, checkpoint_every=checkpoint_every
    )
    console.emit(found, json=json)
