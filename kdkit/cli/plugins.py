"""``kdkit plugins``, ``kdkit plugins verify``, and the warnings about plugins that do not work."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdkit.cli import console
from kdkit.core.base.errors import ExitCode

if TYPE_CHECKING:
    from kdkit.core.plugin_system.catalogue import PluginRecord
    from kdkit.core.plugin_system.requirements import Frozen
    from kdkit.testing.verify import Report


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    group = typer.Typer(help="The installed plugins: who provides them, whether they work, what they provide.")
    group.callback(invoke_without_command=True)(list_plugins)
    group.command("verify")(verify)
    group.command("freeze")(freeze)
    app.add_typer(group, name="plugins")


def list_plugins(context: typer.Context, json: console.JsonOption = False) -> None:
    """List the installed plugins: who provides them, whether they work, and what they provide."""
    if context.invoked_subcommand is not None:
        return
    from dataclasses import asdict

    from kdkit.core.plugin_system.discovery import load_catalogue

    records = load_catalogue().records
    data = {"plugins": [asdict(record) for record in records]}
    console.emit(data, json=json, text=lambda: _as_text(records))


def verify(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A distribution, or an entry point of one.")],
    tests: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Use the examples and options of the contract classes in FILE.")
    ] = None,
    json: console.JsonOption = False,
) -> None:
    """Check that a plugin keeps the promises of its contracts: every check of kdkit.testing that applies.

    Exits with 1 when a check failed, with 5 when the plugin cannot be loaded at all.
    """
    from dataclasses import asdict

    from kdkit.testing.verify import verify_plugin

    report = verify_plugin(name, tests=tests, reporter=console.reporter())
    console.emit({"ok": report.ok, **asdict(report)}, json=json, text=lambda: _checks_as_text(report, tests))
    if report.broken:
        raise typer.Exit(ExitCode.PLUGIN)
    if not report.ok:
        raise typer.Exit(ExitCode.FOUND)


def freeze(json: console.JsonOption = False) -> None:
    """Print kdkit and the distributions with plugins as requirements, for pip install -r. Loads none of them."""
    from dataclasses import asdict

    from kdkit.core.plugin_system import requirements as environment

    found = environment.freeze()
    data = {"requirements": [asdict(one) for one in found]}
    console.emit(data, json=json, text=lambda: "\n".join(_frozen(one) for one in found))


def _frozen(one: Frozen) -> str:
    comment = f"# {one.name}=={one.version}, which only this machine has\n" if one.local else ""
    return comment + one.requirement


def warn_of_broken() -> None:
    """One line on stderr per plugin that does not work, if this command loaded plugins at all."""
    discovery = sys.modules.get("kdkit.core.plugin_system.discovery")
    if discovery is None or not discovery.load_catalogue.cache_info().currsize:
        return
    for record in discovery.load_catalogue().records:
        if record.error:
            console.say(f"warning: {record.status} plugin left out: {_title(record)}: {record.error}")


def _as_text(records: tuple[PluginRecord, ...]) -> str:
    rows = []
    for record in records:
        provides = "; ".join(f"{family}: {_some(names)}" for family, names in record.provides.items())
        milliseconds = "" if record.status == "disabled" else f"{record.milliseconds:.0f}"
        rows.append([record.name, record.distribution, record.version, record.status, milliseconds, provides or "-"])
    notes = [f"{_title(record)}: {note}" for record in records for note in (record.error, *record.notes) if note]
    listing = console.table(["plugin", "distribution", "version", "status", "ms", "provides"], rows, "llllrl")
    return "\n".join([listing, *([""] if notes else []), *notes])


def _checks_as_text(report: Report, tests: Path | None) -> str:
    """What was checked, line by line; checks that were skipped for one reason in one line."""
    lines = [f"{report.plugin} {report.version}"]
    for subject, checks in groupby(report.checks, key=lambda check: check.subject):
        lines += ["", subject]
        skipped: dict[str, int] = {}
        for check in checks:
            if check.status == "passed":
                lines.append(f"  passed   {check.summary}")
            elif check.status == "failed":
                lines += [f"  FAILED   {check.summary}", f"           {check.name}: {check.message}"]
            else:
                skipped[check.message] = skipped.get(check.message, 0) + 1
        lines += [f"  skipped  {number} check{'s' * (number > 1)}: {reason}" for reason, number in skipped.items()]
    if report.count("skipped") and not (report.broken or tests):
        lines += ["", f"with examples from the plugin's own tests: kdkit plugins verify {report.plugin} --tests FILE"]
    seconds = sum(check.seconds for check in report.checks)
    numbers = ", ".join(f"{report.count(status)} {status}" for status in ("passed", "failed", "skipped"))
    return "\n".join([*lines, "", f"{numbers} in {seconds:.1f} s"])


def _some(names: tuple[str, ...], at_most: int = 5) -> str:
    more = len(names) - at_most
    return ", ".join(names[:at_most]) + (f" and {more} more" if more > 0 else "")


def _title(record: PluginRecord) -> str:
    return f"{record.name} of {record.distribution} {record.version}"
