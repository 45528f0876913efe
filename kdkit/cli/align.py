"""``kdkit align``: what each aligner would do to a teacher."""

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
    """Fit the aligners on the store and judge them on samples that they have not seen.

    Needed only for recipes with 'space: shared'. Go by 'ranking' and 'gap': every aligner reconstructs well.
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
            + f"\n\n{reports[0].samples} training samples of '{teacher}' that the aligners were not fitted on."
            "\nranking: rank correlation of how images order the texts, before and after; same first: share whose"
            "\nfirst text stays; gap: cosine with other teachers, same sample minus different; reconstruction: cosine."
        ),
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
