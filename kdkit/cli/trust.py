"""``kdkit trust``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from kdkit.cli import console

Basis = Literal["label", "caption", "list"]
Per = Literal["domain", "sample"]


def register(app: typer.Typer) -> None:
    """Attach the command."""
    app.command()(trust)


def trust(
    policy: Annotated[str | None, typer.Option(help="Try this policy instead of the project's.")] = None,
    options: Annotated[
        list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="Of the policy; may be repeated.")
    ] = None,
    by: Annotated[
        Basis | None, typer.Option(help="Measure by labels, captions or imported lists instead of the project's way.")
    ] = None,
    per: Annotated[Per | None, typer.Option(help="Let the policy weigh each domain, or each sample.")] = None,
    device: Annotated[str, typer.Option(help="Of the extraction: cpu, cuda, cuda:1 ...")] = "cpu",
    json: console.JsonOption = False,
    folder: console.ProjectOption = None,
) -> None:
    """Show the accuracy of each teacher on each domain, and the teachers that each policy admits.

    Missing features of calibration samples are extracted first.
    """
    project = console.project(folder)
    console.resumable()
    given = console.parse_options(options)
    console.emit(project.trust(policy, options=given, by=by, per=per, device=device), json=json)
