"""``kdkit trust``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kdkit.cli import console


def register(app: typer.Typer) -> None:
    """Attach the command."""
    app.command()(trust)


def trust(
    policy: Annotated[str | None, typer.Option(help="Try this policy instead of the project's.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An option of the policy; may be repeated.")
    ] = None,
    json: console.JsonOption = False,
    folder: console.ProjectOption = None,
) -> None:
    """How far each teacher is to be believed on each domain, and whom each policy would let teach."""
    project, reporter = console.project(folder), console.reporter()
    options = dict(named_option(text) for text in option or ())

    from kdkit.core.evaluation.report import to_text
    from kdkit.core.evaluation.trust.report import report_trust
    from kdkit.core.evaluation.trust.weights import warn_about_gaps

    with project.exclusive("kdkit trust"):
        report = report_trust(project, policy, options, reporter=reporter)
    console.emit(report.to_json(), json=json, text=lambda: to_text(report.sections(), console.table))
    warn_about_gaps(report.chosen.domains_without_teacher, report.chosen.teachers_without_domain, reporter)


def named_option(text: str) -> tuple[str, Any]:
    """``value=0.8`` -> ("value", 0.8); what is no JSON is a word."""
    from json import loads

    from kdkit.core.base.errors import KdkitError

    name, equals, value = text.partition("=")
    if not name or not equals:
        raise KdkitError(
            "KD-CLI-012", f"'{text}' is not NAME=VALUE", where="--option", fix="for example --option value=0.8"
        )
    try:
        return name, loads(value)
    except ValueError:
        return name, value
