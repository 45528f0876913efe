"""``kdkit pseudo-label``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdkit.cli import console

if TYPE_CHECKING:
    from kdkit.core.distill.pseudo_labels.label import LabelReport


def register(app: typer.Typer) -> None:
    """Attach the command."""
    app.command("pseudo-label")(pseudo_label)


def pseudo_label(
    teacher: Annotated[str, typer.Option(metavar="NAME", help="Who answers: a teacher of the registry.")],
    to: Annotated[Path, typer.Option(metavar="FILE.jsonl", help="The manifest to write.")],
    domain: Annotated[list[str] | None, typer.Option(help="Only questions of this domain; may be repeated.")] = None,
    min_confidence: Annotated[
        float | None, typer.Option(help="Least mean probability of an answer's tokens, 0 to 1.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Look at this many questions at most.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count; ask nobody and write no manifest.")] = False,
    device: Annotated[str, typer.Option(help="Where the teacher runs, e.g. cuda.")] = "cpu",
    json: console.JsonOption = False,
    folder: console.ProjectOption = None,
) -> None:
    """Let a trusted teacher answer the questions of the training split that have no answer.

    It answers in the domains alone in which the project's trust policy admits it. The manifest is a data entry like
    any other (source: jsonl). May be interrupted at any time.
    """
    project, reporter = console.project(folder), console.reporter()

    from kdkit.core.distill.pseudo_labels.label import LabelRequest, no_labels_error, write_pseudo_labels

    request = LabelRequest(tuple(domain or ()), min_confidence, limit)
    console.resumable()
    with project.exclusive("kdkit pseudo-label"):
        done = write_pseudo_labels(project, teacher, to, request, dry_run=dry_run, device=device, reporter=reporter)
    console.emit({**done.to_json(), "dry_run": dry_run}, json=json, text=lambda: _text(done, dry_run))
    for name, count in done.not_trusted.items():
        reporter.warn(f"domain '{name}': {count} questions stay open, the trust policy does not admit {teacher} there")
    if not done.kept and not dry_run:
        raise no_labels_error(done)


def _text(done: LabelReport, dry_run: bool) -> str:
    from kdkit.core.distill.pseudo_labels.manifest import data_entry

    rows = [("questions without an answer", done.unanswered)]
    rows += [(f"- not trusted in {name}", count) for name, count in done.not_trusted.items()]
    rows += [("- over the limit", done.over_limit)] if done.over_limit else []
    if dry_run:
        left = done.unanswered - sum(done.not_trusted.values()) - done.over_limit - done.known
        rows += [("answered before", done.known), ("would be asked", left)]
        return console.table((done.teacher, "questions"), rows, "lr")
    rows += [("answered now", done.answered), ("answered before", done.known), ("- empty answers", done.empty)]
    rows += [("- not confident enough", done.unsure), ("- of unknown confidence", done.unknown)]
    rows += [("- that the student cannot learn", done.unlearnable)]
    rows += [(f"pseudo-labels in {name}", count) for name, count in done.kept.items()] or [("pseudo-labels", 0)]
    told = console.table((done.teacher, "questions"), rows, "lr")
    if not done.kept:
        return told
    return f"{told}\n\nin registry.yaml, under data:\n  {data_entry(done.file, done.image_root)}"
