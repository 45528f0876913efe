"""``kdkit plugins``, and the warnings about plugins that do not work."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from kdkit.cli import console

if TYPE_CHECKING:
    from kdkit.core.discovery import PluginRecord


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("plugins")(list_plugins)


def list_plugins(json: console.JsonOption = False) -> None:
    """List the installed plugins and what each provides."""
    from kdkit.core.discovery import load_catalogue

    records = load_catalogue().records
    console.emit(
        {"plugins": [_as_json(record) for record in records]}, json=json, text=lambda: _as_text(records)
    )


def warn_of_broken() -> None:
    """One line on stderr per plugin that does not work, if this command loaded plugins at all."""
    discovery = sys.modules.get("kdkit.core.discovery")
    if discovery is None or not discovery.load_catalogue.cache_info().currsize:
        return
    for r in discovery.load_catalogue().records:
        if r.error:
            console.say(
                f"warning: {r.status} plugin left out: {r.name} of {r.distribution} {r.version}: {r.error}"
            )


def _as_json(record: PluginRecord) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(record)


def _as_text(records: tuple[PluginRecord, ...]) -> str:
    rows = []
    for r in records:
        provides = "; ".join(f"{family}: {', '.join(names)}" for family, names in r.provides.items())
        rows.append(
            [r.name, r.distribution, r.version, r.status, f"{r.milliseconds:.0f}", r.error or provides]
        )
    return console.table(["plugin", "distribution", "version", "status", "ms", "provides"], rows, "llllr")
