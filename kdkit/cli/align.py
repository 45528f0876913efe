"""``kdkit align``: compares aligners."""

from __future__ import annotations

from typing import Annotated

import typer

from kdkit.cli import console


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("align")(align)


def align(
    teacher: Annotated[str, typer.Argument(help="A teacher of the project, with features in the store.")],
    aligner: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    dim: Annotated[int | None, typer.Option(min=1, help="Width of the common space (default: the student's).")] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of samples and of aligners that are trained.")] = 0,
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
) -> None:
    """Fit aligners on stored features and measure them on held-out samples.

    Needed only for recipes with 'space: shared'. Compare 'ranking' and 'gap': every aligner reconstructs well.
    """
    from dataclasses import asdict

    from kdkit.core.distill.alignment.compare import compare_aligners

    reporter = console.reporter()
    reports = compare_aligners(console.project(folder), teacher, aligner or (), dim=dim, seed=seed, reporter=reporter)
    rows = [
        [r.aligner, _number(r.ranking), _number(r.top1), _number(r.gap), _number(r.reconstruction)] for r in reports
    ]
    headers = ["aligner", "ranking", "same first", "gap", "reconstruction"]
    console.emit(
        [asdict(report) for report in reports],
        json=json,
        text=lambda: (
            console.table(headers, rows, "lrrrr")
            + f"\n\n{reports[0].samples} held-out training samples of '{teacher}'."
            "\nranking: rank correlation of the texts' order for an image, before and after alignment"
            "\nsame first: share of images with the same first text"
            "\ngap: cosine with other teachers, same sample minus different samples; reconstruction: cosine"
        ),
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
