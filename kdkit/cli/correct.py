"""``kdkit correct``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdkit.cli import console
from kdkit.cli.trust import named_option

if TYPE_CHECKING:
    from kdkit.core.distill.pseudo_labels.correct import CorrectionReport


def register(app: typer.Typer) -> None:
    """Attach the command."""
    app.command()(correct)


def correct(
    to: Annotated[Path, typer.Option(metavar="FILE.jsonl", help="The manifest to write.")],
    version: Annotated[str | None, typer.Option(help="Who answers: a version (default: the current one).")] = None,
    threshold: Annotated[float, typer.Option(help="Answers that score lower are corrected, 0 to 1.")] = 0.8,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An option of the scoring task; may be repeated.")
    ] = None,
    corrector: Annotated[
        str, typer.Option(metavar="TEACHER", help="Who rewrites; 'reference' takes the reference as it is.")
    ] = "reference",
    accept: Annotated[
        float | None, typer.Option(help="Least score of a corrector's words (default: the threshold).")
    ] = None,
    domain: Annotated[list[str] | None, typer.Option(help="Only samples of this domain; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option(help="Ask about this many samples at most.")] = None,
    device: Annotated[str, typer.Option(help="Where the models run, e.g. cuda.")] = "cpu",
    json: console.JsonOption = False,
    folder: console.ProjectOption = None,
) -> None:
    """Let the student answer the training split, and write what it got wrong, corrected, as a manifest.

    The manifest is a data entry like any other (source: jsonl): the next 'kdkit distill' learns from it. May be
    interrupted at any time. A recipe with 'correction' does this inside a run, after every epoch.
    """
    project, reporter = console.project(folder), console.reporter()
    options = dict(named_option(text) for text in option or ())

    from kdkit.core.distill.pseudo_labels.correct import CorrectionRequest, write_corrections

    request = CorrectionRequest(
        threshold, accept, options, corrector=corrector, domains=tuple(domain or ()), limit=limit
    )
    console.resumable()
    with project.exclusive("kdkit correct"):
        done = write_corrections(project, to, request, version=version, device=device, reporter=reporter)
    console.emit(done.to_json(), json=json, text=lambda: _text(done))


def _text(done: CorrectionReport) -> str:
    from kdkit.core.distill.pseudo_labels.manifest import data_entry

    rows = [("training samples asked about", done.answered), ("- before this call", done.known)]
    rows += [("- that the task cannot score", done.unscored)]
    rows += [(f"corrected in {name}", count) for name, count in done.wrong.items()] or [("corrected", 0)]
    rows += [("- in the corrector's words", done.rewritten), ("- its words were not taken", done.refused)]
    told = console.table((done.version, "samples"), rows, "lr")
    if not done.wrong:
        return f"{told}\n\nno answer is wrong: nothing was written"
    return f"{told}\n\nin registry.yaml, under data:\n  {data_entry(done.file, done.image_root)}"
