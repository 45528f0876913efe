"""The ``kdkit`` command. Command modules import typer alone; everything heavy is imported inside commands."""

from __future__ import annotations

import typer

from kdkit.cli import align, data, demo, distill, evaluate, export, features, plugins, recipes, registry, trust, versions

app = typer.Typer(name="kdkit", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=True)
for module in (registry, plugins, data, features, trust, align, recipes, distill, versions, evaluate, export, demo):
    module.register(app)


def run() -> None:
    """Entry point."""
    app()
