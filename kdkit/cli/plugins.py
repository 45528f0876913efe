"""``kdkit plugins``: list, ``verify``, ``freeze``; warnings about broken plugins."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from kdkit.cli import console
from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean

VARIABLES = ("KDKIT_PLUGINS", "KDKIT_NO_PLUGINS", "KDKIT_STRICT", "KDKIT_DEBUG", "KDKIT_HUB_TOKEN")
"""The environment variables that kdkit reads."""


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    group = typer.Typer(help="The installed plugins: what they provide, and whether they work.")
    group.callback(invoke_without_command=True)(list_plugins)
    group.command("verify")(verify)
    group.command("freeze")(freeze)
    app.add_typer(group, name="plugins")


def list_plugins(context: typer.Context, json: console.JsonOption = False) -> None:
    """List the installed plugins: what they provide, and whether they work."""
    if context.invoked_subcommand is None:
        from kdkit.api import plugins

        console.emit(plugins.list_plugins(), json=json)


def verify(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A distribution, or an entry point of one.")],
    tests: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Use the examples and options of the contract classes in FILE.")
    ] = None,
    json: console.JsonOption = False,
) -> None:
    """Run the conformance checks of kdkit.testing on everything that a plugin provides.

    Exits with 1 if a check failed, with 5 if the plugin cannot be loaded.
    """
    from kdkit.api import plugins

    checked = plugins.verify_plugin(name, tests=tests, reporter=console.reporter())
    console.emit(checked, json=json)
    if checked.report.broken:
        raise typer.Exit(ExitCode.PLUGIN)
    if not checked.ok:
        raise typer.Exit(ExitCode.FOUND)


def freeze(json: console.JsonOption = False) -> None:
    """Print kdkit and the distributions with plugins as requirements, for pip install -r. Loads no plugin."""
    from kdkit.api import plugins

    console.emit(plugins.freeze_plugins(), json=json)


def warn_of_broken() -> None:
    """Print a warning for each broken plugin, if this command loaded plugins, and for misspelled variables."""
    for name in os.environ:
        if name.startswith("KDKIT_") and name not in VARIABLES:
            console.say(f"warning: kdkit reads no variable {name}; {did_you_mean(name, VARIABLES)}")
    discovery = sys.modules.get("kdkit.core.plugin_system.discovery")
    if discovery is None or not discovery.load_catalogue.cache_info().misses:
        if os.environ.get("KDKIT_PLUGINS"):
            _warn_of_absent()
        return
    if not discovery.load_catalogue.cache_info().currsize:
        return  # the error was shown
    for record in discovery.load_catalogue().records:
        if record.error:
            console.say(f"warning: {record.status} plugin left out: {record.title}: {record.error}")


def _warn_of_absent() -> None:
    """A misspelled plugin in KDKIT_PLUGINS is an error of commands that load plugins, and a warning of others."""
    from kdkit.core.plugin_system.discovery import chosen_plugins, require_installed

    try:
        require_installed(chosen_plugins() or ())
    except KdkitError as error:
        console.say(f"warning: {error.headline}")
