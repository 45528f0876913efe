"""``kdkit align``: aligners compared on a teacher."""

from __future__ import annotations

from typing import Annotated

import typer

from kdkit.cli import console


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("align")(align)


def align(
    teacher: Annotated[str, typer.Argument(help="A teacher of the project, with features in the store.")],
    aligners: Annotated[list[str] | None, typer.Option("--aligner", help="Only this one; may be repeated.")] = None,
    dim: Annotated[int | None, typer.Option(min=1, help="Width of the common space (default: the student's).")] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of samples and of trained aligners.")] = 0,
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
) -> None:
    """Fit aligners on stored features and measure them on held-out samples.

    Only recipes with 'space: shared' need one. Compare 'ranking' and 'gap': every aligner reconstructs well.
    """
    console.emit(console.project(folder).align(teacher, aligners=aligners or (), dim=dim, seed=seed), json=json)
