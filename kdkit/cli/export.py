"""``kdkit export``: a version as a folder for stock open_clip."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdkit.cli import console

if TYPE_CHECKING:
    from kdkit.core.publish.export import Exported


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("export")(export)


def export(
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder to make.")],
    version: Annotated[str | None, typer.Argument(help="Default: the current version.")] = None,
    repo: Annotated[
        str | None, typer.Option("--repo", metavar="ORG/NAME", help="What 'kdkit push' would publish there.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    project: console.ProjectOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Write a version as a folder that stock open_clip loads, without kdkit and without network.

    Before it appears, stock open_clip loads it in a process of its own and must give the version's features.
    """
    from kdkit.core.publish.export import export_version

    workspace = console.workspace(project)
    done = export_version(workspace, version, to, repo=repo, overwrite=overwrite, reporter=console.reporter())
    data = {
        "folder": done.folder,
        "files": list(done.files),
        "size": done.size,
        "image_difference": done.image_difference,
        "text_difference": done.text_difference,
        "moves": done.moves,
    }
    console.emit(data, json=as_json, text=lambda: _text(done, repo))


def _text(done: Exported, repo: str | None) -> str:
    name = f"hf-hub:{repo}" if repo else f"local-dir:{done.folder}"
    return "\n".join(
        (
            f"{done.folder}: {len(done.files)} files, {done.size / 1e6:.1f} MB",
            f"stock open_clip differs by {max(done.image_difference, done.text_difference):.1g} at most",
            *(
                ()
                if done.moves
                else ("stock open_clip finds its text tower by this path alone: do not move the folder",)
            ),
            "",
            f"  model, _, preprocess = open_clip.create_model_and_transforms('{name}')",
            f"  tokenizer = open_clip.get_tokenizer('{name}')",
        )
    )
