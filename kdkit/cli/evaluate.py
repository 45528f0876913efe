"""``kdkit evaluate``."""

from __future__ import annotations

from typing import Annotated

import typer

from kdkit.cli import console


def register(app: typer.Typer) -> None:
    """Attach the command."""
    app.command()(evaluate)


def evaluate(
    version: Annotated[
        str | None, typer.Argument(help="A version or a refused candidate (default: the current version).")
    ] = None,
    split: Annotated[str, typer.Option(help="train, calibration or test.")] = "test",
    alone: Annotated[bool, typer.Option("--alone", help="Without the versions that it comes from.")] = False,
    device: Annotated[str, typer.Option(help="Where the student runs, e.g. cuda.")] = "cpu",
    json: console.JsonOption = False,
    folder: console.ProjectOption = None,
) -> None:
    """Zero-shot accuracy and AUC of the student, beside every teacher and the oracle.

    Writes a JSON report and a picture to reports/. The oracle takes, for every domain, the teacher that is best
    on the calibration split.
    """
    project, reporter = console.project(folder), console.reporter()

    from kdkit.core.base.errors import KdkitError, did_you_mean
    from kdkit.core.contracts import SPLITS

    if split not in SPLITS:
        raise KdkitError("KD-CLI-004", f"there is no split '{split}'", where="--split", fix=did_you_mean(split, SPLITS))

    from kdkit.core.evaluation.evaluate import evaluate_version
    from kdkit.core.evaluation.report import to_text, write_report

    with project.exclusive("kdkit evaluate"):
        report = evaluate_version(project, version, split=split, ancestors=not alone, device=device, reporter=reporter)
        written = write_report(project.reports, report)
    console.emit(written.to_json(), json=json, text=lambda: to_text(report.sections(), console.table))
    reporter.say(f"report: {written.file}, picture: {written.picture}")
