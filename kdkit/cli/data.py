"""``kdkit data check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kdkit.cli import console
from kdkit.core.base.errors import ExitCode

if TYPE_CHECKING:
    from kdkit.core.data.check import DataReport

SHOWN = 20


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    group = typer.Typer(help="The samples of the project.", no_args_is_help=True)
    group.command("check")(check)
    app.add_typer(group, name="data")


def check(
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Unreadable images are no problem.")
    ] = False,
) -> None:
    """Count domains and classes; find unreadable images, duplicate ids and leaks between splits.

    Exits with 1 when there is a problem.
    """
    from dataclasses import asdict

    from kdkit.core.data.check import check_data

    report = check_data(console.project(folder), skip_unreadable=skip_unreadable, reporter=console.reporter())
    data = {"ok": not report.problems, "problems": report.problems, **asdict(report)}
    console.emit(data, json=json, text=lambda: _text(report))
    if report.problems:
        raise typer.Exit(ExitCode.FOUND)


def _text(report: DataReport) -> str:
    rows = [
        (domain, label, *splits.values(), sum(splits.values()))
        for domain, labels in report.counts.items()
        for label, splits in labels.items()
    ]
    lines = [
        console.table(("domain", "class", "train", "calibration", "test", "all"), rows, "llrrrr"),
        f"{report.samples} samples, {len(report.counts)} domains",
    ]
    if report.repeated:
        those = "1 sample has" if report.repeated == 1 else f"{report.repeated} samples have"
        lines.append(f"note: {those} an image that another of their split has")
    if report.unlabeled:
        lines.append(f"note: no labels, so no trust can be measured, in: {', '.join(report.unlabeled)}")
    if report.without_calibration_answers:
        missing = ", ".join(report.without_calibration_answers)
        lines.append(f"note: no calibration questions, so neither trust nor the guard can judge, in: {missing}")
    for domain, splits in report.unanswered.items():
        counts = ", ".join(f"{count} in {split}" for split, count in splits.items() if count)
        lines.append(
            f"note: questions without an answer, which nobody learns from or is judged by, in {domain}: {counts}"
        )
    if report.skipped:
        lines.append(f"note: {len(report.skipped)} unreadable images are skipped")
    lines += [f"problem: {problem}" for problem in report.problems]
    lines += [f"  unreadable: {bad.image}: {bad.why}" for bad in report.unreadable[:SHOWN]]
    for id_, places in list(report.duplicates.items())[:SHOWN]:
        lines.append(f"  id '{id_}' is at {', '.join(places)}")
    return "\n".join(lines if report.problems else [*lines, "no problems found"])
