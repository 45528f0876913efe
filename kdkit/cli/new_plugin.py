"""``kdkit new-plugin``: a whole package that works, to be changed into one's own."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdkit.cli import console

if TYPE_CHECKING:
    from kdkit.core.plugin_system.scaffold.write import NewPlugin

KIND_HELP = "teacher, student, aligner, loss, rope, source, policy, task, recipe or loader."


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("new-plugin")(new_plugin)


def new_plugin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the plugin; 'kdkit-' may stand in front.")],
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help=KIND_HELP)],
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="The folder to make (default: kdkit-NAME, here).")
    ] = None,
    json: console.JsonOption = False,
) -> None:
    """Write a plugin: a package that installs, works and passes its own tests, to be changed into yours."""
    from kdkit.core.plugin_system.scaffold.write import write_plugin

    made = write_plugin(name, kind, to)
    data = {
        "distribution": made.names.distribution,
        "module": made.names.module,
        "name": made.names.short,
        "kind": made.kind,
        "folder": made.folder,
        "files": list(made.files),
        "next": next_commands(made),
    }
    console.emit(data, json=json, text=lambda: as_text(made))


def next_commands(made: NewPlugin) -> list[str]:
    """Install, verify, test: in this order."""
    folder = shlex.quote(_nearest(made.folder))
    return [
        f"kdkit install -e {folder}",
        f"kdkit plugins verify {made.names.distribution}",
        f"pytest {folder}",
    ]


def as_text(made: NewPlugin) -> str:
    """What was written, where the work is, and what to do next."""
    from kdkit.core.plugin_system.scaffold.kinds import KINDS

    package = [file for file in made.files if file.startswith(f"{made.names.module}/") and not file.endswith(".typed")]
    what = f"{made.names.distribution}, {KINDS[made.kind].summary}"
    lines = [f"wrote {what}: {len(made.files)} files in {_nearest(made.folder)}", "yours to change:"]
    lines += [f"  {file}" for file in package]
    lines += ["next:", *(f"  {command}" for command in next_commands(made))]
    return "\n".join(lines)


def _nearest(folder: Path) -> str:
    """Relative where it is below the current folder; with ``./``, so that pip takes it for a folder."""
    try:
        return f"./{folder.relative_to(Path.cwd()).as_posix()}"
    except ValueError:
        return str(folder)
