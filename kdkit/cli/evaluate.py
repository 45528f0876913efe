"""``kdkit evaluate`` and ``kdkit report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdkit.cli import console


def register(app: typer.Typer) -> None:
    """Attach the command."""
    app.command()(evaluate)
    app.command()(report)


def evaluate(
    version: Annotated[
        str | None, typer.Argument(help="A version or a refused candidate (default: the current version).")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Such as retrieval; 'kdkit plugins --json' lists all (default: of the student's family)."),
    ] = None,
    options: Annotated[
        list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="Of the task; may be repeated.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, calibration or test.")] = "test",
    alone: Annotated[bool, typer.Option("--alone", help="Without the versions that it comes from.")] = False,
    by: Annotated[
        str | None,
        typer.Option(metavar="COLUMNS", help="Scores of subgroups: columns of the data, such as sex,scanner."),
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the page of 'kdkit report' too.")] = None,
    suite: Annotated[
        str | None, typer.Option(metavar="NAME", help="On the present data sets of a suite: 'kdkit suites'.")
    ] = None,
    datasets: Annotated[
        list[str] | None, typer.Option("--dataset", help="Only this one of the suite; repeatable.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the suite's data sets (default: suites/).")
    ] = None,
    no_teachers: Annotated[
        bool, typer.Option("--no-teachers", help="On a suite: extract and compare no teachers.")
    ] = False,
    device: Annotated[str, typer.Option(help="Of the student, e.g. cuda.")] = "cpu",
    json: console.JsonOption = False,
    folder: console.ProjectOption = None,
) -> None:
    """Evaluate the student beside its ancestors, every teacher and the oracle.

    Writes a JSON report and a picture to reports/. For every domain, the oracle is the teacher that is best on the
    calibration split. Without labels, captions are the measure: the task is then retrieval.
    """
    written = console.project(folder).evaluate(
        version,
        task=task,
        options=console.parse_options(options),
        split=split,
        alone=alone,
        by=[name.strip() for name in (by or "").split(",") if name.strip()],
        html=html,
        suite=suite,
        datasets=datasets or (),
        data=data,
        no_teachers=no_teachers,
        device=device,
    )
    console.emit(written, json=json)


def report(
    version: Annotated[
        str | None, typer.Argument(help="A version or a refused candidate (default: the current version).")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Default: reports/VERSION.html of the project.")
    ] = None,
    json: console.JsonOption = False,
    folder: console.ProjectOption = None,
) -> None:
    """Write one self-contained HTML page about a version, from what is stored; nothing is evaluated.

    It shows the stored evaluations, trust, retention, single samples and the loss curves. It names what is absent.
    """
    console.emit(console.project(folder).report(version, html=html), json=json)
