"""``kdkit features``: ``extract``, ``verify``, ``push``, ``pull``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from kdkit.cli import console
from kdkit.core.base.errors import ExitCode, KdkitError

if TYPE_CHECKING:
    from kdkit.core.contracts import Reporter
    from kdkit.core.data import SampleIndex
    from kdkit.core.features.extract.status import ColumnStatus
    from kdkit.core.project.project import Project
    from kdkit.core.sharing.features import PushedFeatures

Repository = Annotated[str, typer.Argument(metavar="ORG/NAME", help="A data set repository.")]
Teachers = Annotated[list[str] | None, typer.Argument(metavar="[TEACHER]...", help="By default all.")]


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    group = typer.Typer(help="The feature store: what the teachers said about the samples.")
    group.callback(invoke_without_command=True)(show)
    group.command("extract")(extract)
    group.command("verify")(verify)
    group.command("push")(push)
    group.command("pull")(pull)
    app.add_typer(group, name="features")


def show(context: typer.Context, folder: console.ProjectOption = None, json: console.JsonOption = False) -> None:
    """Show the feature store: teachers, signals, how many samples have features, size."""
    if context.invoked_subcommand is not None:
        return
    from dataclasses import asdict

    from kdkit.core.features.extract.status import column_statuses

    project, reporter = console.project(folder), console.reporter()
    statuses = column_statuses(project, _table(project, reporter), reporter)
    console.emit([asdict(status) for status in statuses], json=json, text=lambda: _text(statuses))


def extract(
    teachers: Teachers = None,
    folder: console.ProjectOption = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    batch_size: Annotated[int, typer.Option(min=1, help="Samples per call of a teacher.")] = 64,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that decode and preprocess (default: one per processor).")
    ] = None,
    json: console.JsonOption = False,
) -> None:
    """Extract what is missing. May be interrupted at any time; run again, it goes on."""
    from dataclasses import asdict

    from kdkit.core.data import load_index
    from kdkit.core.features.extract.missing import extract_missing

    project, reporter = console.project(folder), console.reporter()
    console.resumable()
    with project.exclusive("kdkit features extract"):
        done = extract_missing(
            project,
            load_index(project, reporter),
            teachers or (),
            device=device,
            batch_size=batch_size,
            workers=workers,
            reporter=reporter,
        )
    rows = [(d.teacher, d.fingerprint[:12], d.new, d.kept, d.unreadable, d.prompts, d.answers) for d in done]
    headers = ("teacher", "fingerprint", "new", "there before", "unreadable", "new prompts", "new answers")
    console.emit(
        [asdict(one) for one in done],
        json=json,
        text=lambda: console.table(headers, rows, "llrrrrr") if rows else "nothing is missing",
    )


def verify(
    teachers: Teachers = None,
    folder: console.ProjectOption = None,
    quick: Annotated[bool, typer.Option("--quick", help="Structure and ids only, no checksums of features.")] = False,
    json: console.JsonOption = False,
) -> None:
    """Compare every block with its checksum. Exits with 1 when one is damaged."""
    from kdkit.core.features.extract.status import verify_columns

    project = console.project(folder)
    found = verify_columns(project, teachers or (), deep=not quick, reporter=console.reporter())
    damaged = any(found.values())
    lines = [f"{column}: {problem}" for column, problems in found.items() for problem in problems or ["ok"]]
    console.emit({"ok": not damaged, "columns": found}, json=json, text="\n".join(lines or ["no features"]))
    if damaged:
        raise typer.Exit(ExitCode.FOUND)


def push(
    repository: Repository,
    teachers: Teachers = None,
    public: Annotated[bool, typer.Option("--public", help="Everybody may read it (default: private).")] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Columns of other teachers that the repository holds may go.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent; send nothing.")] = False,
    folder: console.ProjectOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Share columns as a data set: no images, no captions, no labels, no names of samples."""
    from kdkit.core.sharing.features import push_features

    project, reporter = console.project(folder), console.reporter()
    if not dry_run:
        console.resumable()
    with project.exclusive("kdkit features push"):
        done = push_features(
            project,
            repository,
            teachers or (),
            public=public,
            delete=delete,
            dry_run=dry_run,
            reporter=reporter,
        )
    uploaded = done.uploaded
    data = {
        "columns": {
            name: {"rows": c.rows, "prompts": c.texts, "license": c.license} for name, c in done.columns.items()
        },
        "plan": done.plan.to_json(),
        "uploaded": None if uploaded is None else {"url": uploaded.url, "commit": uploaded.commit},
    }
    console.emit(data, json=as_json, text=lambda: _pushed_text(done))


def pull(
    repository: Repository,
    teachers: Teachers = None,
    revision: Annotated[str, typer.Option(metavar="R", help="Branch, tag or commit.")] = "main",
    folder: console.ProjectOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Add shared columns to the store, verified; the project's own features stay as they are."""
    from dataclasses import asdict

    from kdkit.core.sharing.features import pull_features

    project = console.project(folder)
    with project.exclusive("kdkit features pull"):
        pulled = pull_features(project, repository, teachers or (), revision=revision, reporter=console.reporter())
    rows = [(c.teacher, c.fingerprint[:12], c.rows, c.here, c.texts) for c in pulled]
    headers = ("teacher", "fingerprint", "new rows", "shards there before", "new prompts")
    absent = [c.teacher for c in pulled if c.teacher not in project.registry.teachers]
    if absent:
        console.say(f"not used yet, since registry.yaml does not have them (or as comments): {', '.join(absent)}")
    console.emit([asdict(c) for c in pulled], json=as_json, text=lambda: console.table(headers, rows, "llrrr"))


def _pushed_text(done: PushedFeatures) -> str:
    plan, uploaded = done.plan, done.uploaded
    rows = [(name, c.rows, c.texts, c.license) for name, c in done.columns.items()]
    lines = [console.table(("teacher", "samples", "prompts", "license"), rows, "lrrl"), ""]
    changes = f"{len(plan.adds)} files to add, {len(plan.updates)} to change, {len(plan.deletes)} to delete"
    lines.append(f"{plan.repo}: {changes}, {len(plan.unchanged)} unchanged; {console.size(plan.size)} to send")
    if uploaded is None:
        return "\n".join([*lines, "nothing was sent"])
    return "\n".join([*lines, uploaded.url, f"  kdkit features pull {plan.repo}"])


def _table(project: Project, reporter: Reporter) -> SampleIndex | None:
    """The samples; the store can be shown without them."""
    from kdkit.core.data import load_index

    try:
        return load_index(project, reporter)
    except KdkitError as error:
        reporter.warn(f"samples cannot be counted: {error.headline}")
        return None


def _text(statuses: Sequence[ColumnStatus]) -> str:
    if not statuses:
        return "no features yet; 'kdkit features extract' makes them"
    rows = [
        (
            s.teacher,
            s.fingerprint[:12] + ("" if s.current else " (old)"),
            ", ".join(f"{name} {what}" for name, what in s.signals.items()),
            s.rows,
            s.texts,
            console.size(s.bytes),
            ("yes" if s.complete else "no") + (" (live)" if s.live else ""),
        )
        for s in statuses
    ]
    headers = ("teacher", "fingerprint", "signals", "rows", "prompts", "size", "complete")
    text = console.table(headers, rows, "lllrrrl")
    domains = list(statuses[0].domains)
    if not domains:
        return text
    cells = [[s.teacher, *(_share(counts) for counts in s.domains.values()), s.unreadable] for s in statuses]
    heads, what = ["teacher", *domains, "unreadable"], "samples with features"
    if any(s.answers for s in statuses):
        heads, what = [*heads, "answers"], f"{what}; answers to calibration and test samples"
        cells = [[*row, _share(s.answers)] for row, s in zip(cells, statuses, strict=True)]
    return f"{text}\n\n{what}\n{console.table(heads, cells, 'l' + 'r' * len(heads))}"


def _share(counts: tuple[int, int] | None) -> str:
    return "-" if counts is None else f"{counts[0]}/{counts[1]}"
