"""``kdkit export``: a version as a folder for stock libraries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdkit.cli import console

if TYPE_CHECKING:
    from kdkit.core.sharing.release.export import Exported


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("export")(export)


def export(
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder to make.")],
    version: Annotated[str | None, typer.Argument(help="Default: the current version.")] = None,
    repo: Annotated[
        str | None, typer.Option("--repo", metavar="ORG/NAME", help="What 'kdkit push' would publish there.")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Whole weights of a student with adapters.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    folder: console.ProjectOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Write a version as a folder that stock open_clip, or transformers, loads, without kdkit and without network.

    Before it appears, the library loads it in a process of its own and must give the version's features, or answers.
    """
    from kdkit.core.sharing.release.export import export_version

    done = export_version(
        console.project(folder),
        version,
        to,
        repo=repo,
        overwrite=overwrite,
        merged=merge,
        reporter=console.reporter(),
    )
    data = {
        "folder": done.folder,
        "files": list(done.files),
        "size": done.size,
        "checks": {library: dict(check) for library, check in done.checks.items()},
        "load": dict(done.lines),
        "moves": done.moves,
    }
    console.emit(data, json=as_json, text=lambda: _text(done))


def _text(done: Exported) -> str:
    lines = [f"{done.folder}: {len(done.files)} files, {console.size(done.size)}"]
    for library, check in done.checks.items():
        if "missing" not in check:
            worst = max(value for name, value in check.items() if name.endswith("_difference"))
            lines.append(f"stock {library} differs by {worst:.1g} at most")
    if not done.moves:
        lines.append("stock open_clip finds its text tower by this path alone: do not move the folder")
    for library, code in done.lines.items():
        lines += ["", f"With {library}:", "", *(f"  {line}".rstrip() for line in code.splitlines())]
    return "\n".join(lines)
