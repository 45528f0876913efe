"""``kdkit profile``: where the time of a training step goes."""

from __future__ import annotations

from typing import Annotated

import typer

from kdkit.cli import console


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("profile")(profile)


def profile(
    steps: Annotated[int, typer.Option(help="Training steps; the first two are not counted.")] = 30,
    incremental: Annotated[bool, typer.Option("--incremental", help="Of an increment on the current version.")] = False,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Default: the recipe of registry.yaml.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the run.")] = 0,
    precision: Annotated[str, typer.Option(help="no (float32) or bf16.")] = "no",
    cpu: Annotated[bool, typer.Option("--cpu", help="Use the CPU even if there is a GPU.")] = False,
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
) -> None:
    """Measure a few training steps: data, forward, losses, backward, optimizer, sync.

    It names the one setting that would help most. It trains a copy and makes no version; missing features are
    extracted.
    """
    found = console.project(folder).profile(
        steps=steps, incremental=incremental, recipe=recipe, seed=seed, precision=precision, cpu=cpu
    )
    if found is not None:
        console.emit(found, json=json)
