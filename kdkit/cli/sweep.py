"""``kdkit sweep``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kdkit.cli import console
from kdkit.core.base.errors import KdkitError

QUESTIONS = "recipe, trust, teachers, imbalance, held-out, stages, clinkd; or report."
ARGUMENTS = "recipe: KEY=VALUE,VALUE; held-out: DOMAIN; trust: policies; stages: recipes; report: NAME."


def register(app: typer.Typer) -> None:
    """Attach the command."""
    app.command()(sweep)


def sweep(
    question: Annotated[str, typer.Argument(help=QUESTIONS, metavar="QUESTION")],
    arguments: Annotated[list[str] | None, typer.Argument(help=ARGUMENTS, metavar="ARG")] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Runs per variation.")] = 3,
    length: Annotated[float, typer.Option(metavar="SHARE", help="Of the recipe's steps, above 0 and up to 1.")] = 1.0,
    split: Annotated[str, typer.Option(help="calibration, or test: then the test split is looked at.")] = "calibration",
    domains: Annotated[list[str] | None, typer.Option("--domain", help="Only this domain; may be repeated.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Name or YAML file (default: the registry's).")] = None,
    name: Annotated[str | None, typer.Option(help="Folder under sweeps/ (default: from the question).")] = None,
    job: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only every N-th run, from the I-th; jobs may run at once.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the students: another --split then trains nothing again.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print runs, time and disk; train nothing.")] = False,
    cpu: Annotated[bool, typer.Option("--cpu", help="Use the CPU even if there is a GPU.")] = False,
    precision: Annotated[str, typer.Option(help="no (float32) or bf16.")] = "no",
    checkpoint_every: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.0, help="Seconds between checkpoints.")
    ] = 60.0,
    json: console.JsonOption = False,
    folder: console.ProjectOption = None,
) -> None:
    """Answer an open question by trainings: which recipe, trust, teachers or data give the better student.

    Variations are trained over seeds, compared with the project as it is, and reported in sweeps/NAME. They make no
    version. The same command resumes; a finished run is never repeated; 'report' prints what is there.
    """
    project = console.project(folder)
    console.resumable()
    given, wanted = tuple(arguments or ()), tuple(domains or ())
    part = None if job is None else parse_job(job)
    common: dict[str, Any] = {
        "seeds": seeds,
        "length": length,
        "split": split,
        "domains": wanted,
        "recipe": recipe,
        "name": name,
    }
    machine: dict[str, Any] = {"job": part, "keep": keep, "cpu": cpu, "precision": precision}
    if dry_run:
        console.emit(project.plan_sweep(question, given, **common, **machine), json=json)
        return
    report = project.sweep(question, given, **common, **machine, checkpoint_every=checkpoint_every)
    console.emit(report, json=json)


def parse_job(text: str) -> tuple[int, int]:
    """``2/8`` as numbers.

    Raises:
        KdkitError: anything else.

    Example:
        >>> parse_job("2/8")
        (2, 8)
    """
    first, slash, last = text.partition("/")
    if not (slash and first.isdecimal() and last.isdecimal()):
        raise KdkitError("KD-CLI-380", f"'{text}' is not I/N", where="--job", fix="for example --job 1/4")
    return int(first), int(last)
