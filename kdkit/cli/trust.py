"""``kdkit trust``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdkit.cli import console

if TYPE_CHECKING:
    from kdkit.core.evaluation.trust.project import Admission, TrustFindings


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

    from kdkit.core.evaluation.trust import warn_of_gaps
    from kdkit.core.evaluation.trust.project import project_trust

    task = project.catalogue.get("student", project.registry.student.family).spec.task
    with project.exclusive("kdkit trust"):
        findings = project_trust(project, policy, options, reporter=reporter)
    console.emit(findings.to_json(), json=json, text=lambda: _text(findings, task))
    warn_of_gaps(findings.chosen.uncovered, findings.chosen.idle, reporter)


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


def _text(findings: TrustFindings, task: str) -> str:
    from kdkit.core.evaluation.report.text import accuracy_of, counted_in

    table = findings.table
    rows = [
        (
            domain,
            *(_cell(findings, t, m) for t in range(len(table.teachers))),
            _percent(table.chance[m]),
            str(table.count[m]),
        )
        for m, domain in enumerate(table.domains)
    ]
    headers = ("domain", *table.teachers, "chance", counted_in(task))
    who = [
        (domain, *(_admitted(findings, admission, m) for admission in (findings.chosen, *findings.others)))
        for m, domain in enumerate(table.domains)
    ]
    return "\n".join(
        (
            f"{accuracy_of(task)} in % on the calibration split, {100 * table.level:g} % interval; "
            f"* may teach by {_options(findings.chosen)}",
            console.table(headers, rows, "l" + "l" * len(table.teachers) + "rr"),
            "",
            "Who may teach, by policy (weight where it is not 1)",
            console.table(("domain", f"{findings.chosen.policy} *", *(a.policy for a in findings.others)), who),
            "* " + ", ".join(_options(admission) for admission in (findings.chosen, *findings.others)),
        )
    )


def _cell(findings: TrustFindings, t: int, m: int) -> str:
    table = findings.table
    if table.accuracy[t, m] != table.accuracy[t, m]:  # NaN
        return "-"
    mark = " *" if findings.chosen.weights[t, m] > 0 else ""
    return f"{_percent(table.accuracy[t, m])} ({_percent(table.lower[t, m])}-{_percent(table.upper[t, m])}){mark}"


def _percent(value: float) -> str:
    return "-" if value != value else f"{100 * value:.0f}"


def _options(admission: Admission) -> str:
    # What is switched off has no figure to show.
    values = ", ".join(f"{name} {value}" for name, value in admission.options.items() if value is not False)
    return f"{admission.policy} ({values})" if values else admission.policy


def _admitted(findings: TrustFindings, admission: Admission, m: int) -> str:
    teachers, weights = findings.table.teachers, admission.weights[:, m]
    if len(teachers) > 1 and (weights == 1).all():
        return f"all {len(teachers)}"
    names = [f"{name} {w:.2f}" if w < 1 else name for name, w in zip(teachers, weights, strict=True) if w > 0]
    return ", ".join(names) or "nobody"
