"""``kdkit pull``: a student from the Hub as a project of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdkit.cli import console

if TYPE_CHECKING:
    from kdkit.core.sharing.release.pull import Pulled


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("pull")(pull)


def pull(
    repository: Annotated[str, typer.Argument(metavar="ORG/NAME", help="A student that 'kdkit push' published.")],
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="The folder to make (default: NAME).")] = None,
    revision: Annotated[str, typer.Option(metavar="R", help="Branch, tag or commit.")] = "main",
    features: Annotated[
        str | None, typer.Option(metavar="ORG/DATASET", help="Columns of its teachers, from 'kdkit features push'.")
    ] = None,
    as_json: console.JsonOption = False,
) -> None:
    """Make a project whose current version is a published student.

    Every file is compared with the hashes that were published. Add your data and teachers, then run
    'kdkit distill --incremental'.
    """
    from kdkit.core.sharing.release.pull import pull_student

    reporter = console.reporter()
    into = to or Path(repository.rpartition("/")[2])
    done = pull_student(repository, into, revision=revision, features=features, reporter=reporter)
    for lacking in done.lacking:
        reporter.warn(str(lacking))
    console.emit(_json(done), json=as_json, text=lambda: _text(done))


def _json(done: Pulled) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "project": done.root,
        "version": done.version,
        "origin": vars(done.origin),
        "teachers": list(done.teachers),
        "unpublished_teachers": list(done.unpublished),
        "features": [asdict(column) for column in done.columns],
        "lacking": [{"what": lacking.what, "plugins": list(lacking.plugins)} for lacking in done.lacking],
    }


def _text(done: Pulled) -> str:
    lines = [
        f"{done.root}: {done.version} of {done.origin.repository} at {done.origin.commit[:12]} is its current version",
        f"teachers: {', '.join(done.teachers) or 'none'}",
    ]
    if done.unpublished:
        lines.append(f"only their author has the files of: {', '.join(done.unpublished)} (comments in registry.yaml)")
    lines += [f"features of {c.teacher}: {c.rows} samples, {c.texts} prompts" for c in done.columns]
    return "\n".join([*lines, "next: add your data to registry.yaml and teachers, then 'kdkit distill --incremental'"])
