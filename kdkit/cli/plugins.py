"""``kdkit plugins``, and the warnings about plugins that do not work."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from kdkit.cli import console

if TYPE_CHECKING:
    from kdkit.core.catalogue import PluginRecord


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("plugins")(list_plugins)


def list_plugins(json: console.JsonOption = False) -> None:
    """List the installed plugins: who provides them, whether they work, and what they provide."""
    from dataclasses import asdict

    from kdkit.core.discovery import load_catalogue

    records = load_catalogue().records
    data = {"plugins": [asdict(record) for record in records]}
    console.emit(data, json=json, text=lambda: _as_text(records))


def warn_of_broken() -> None:
    """One line on stderr per plugin that does not work, if this command loaded plugins at all."""
    discovery = sys.modules.get("kdkit.core.discovery")
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


def _some(names: tuple[str, ...], at_most: int = 5) -> str:
    more = len(names) - at_most
    return ", ".join(names[:at_most]) + (f" and {more} more" if more > 0 else "")


def _title(record: PluginRecord) -> str:
    return f"{record.name} of {record.distribution} {record.version}"
