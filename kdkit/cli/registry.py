"""``kdkit init``, ``add-teacher``, ``teachers``, ``remove-teacher`` and ``lock``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdkit.cli import console
from kdkit.core.base.errors import ExitCode, KdkitError

if TYPE_CHECKING:
    from kdkit.core.project.project import Project

OfflineOption = Annotated[bool, typer.Option("--offline", help="Use the Hub's cache alone.")]
TeacherName = Annotated[str, typer.Argument(metavar="NAME")]


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("init")(init)
    app.command("add-teacher")(add_teacher)
    teachers = typer.Typer(help="The chosen teachers, and those that can be added.", invoke_without_command=True)
    teachers.callback()(list_teachers)
    teachers.command("show")(show_teacher)
    app.add_typer(teachers, name="teachers")
    app.command("remove-teacher")(remove_teacher)
    app.command("lock")(lock)


def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]")] = Path(),
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="PATH", help="Images: a folder, table, tar or Parquet file, DICOM files."),
    ] = None,
) -> None:
    """Make a project: write a commented registry.yaml, with an entry that reads the data of --from."""
    from kdkit.api.project import Project

    made = Project.create(folder, source=source, reporter=console.reporter())
    console.say(f"wrote {made.root / 'registry.yaml'}; edit it as you like")
    console.say("next: kdkit add-teacher biomedclip, or kdkit teachers --available")


def add_teacher(
    name: TeacherName,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="SOURCE", help="hf:ORG/REPO[@REV], local:DIR, package:PKG/DIR or https://HOST/FILE.zip."
        ),
    ] = None,
    loader: Annotated[
        str | None, typer.Option(help="open_clip, transformers or a plugin's (default: recognized from the files).")
    ] = None,
    domains: Annotated[
        str | None, typer.Option(metavar="A,B", help="The only domains that it may teach; '' for none.")
    ] = None,
    license: Annotated[str | None, typer.Option(help="The license, if its files do not state one.")] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Compute its signals during training; store none of training samples.")
    ] = False,
    options: Annotated[
        list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="Of the loader; may be repeated.")
    ] = None,
    offline: OfflineOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done; do nothing.")] = False,
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
) -> None:
    """Download a teacher, check that it works and may be used, lock it, and write it into registry.yaml."""
    fields: dict[str, Any] = {
        "source": source,
        "loader": loader,
        "domains": None if domains is None else [part.strip() for part in domains.split(",") if part.strip()],
        "license": license,
        "live": live,
        "options": console.parse_options(options),
        "offline": offline,
    }
    project = console.project(folder)
    console.emit(project.plan_teacher(name, **fields) if dry_run else project.add_teacher(name, **fields), json=json)


def list_teachers(
    context: typer.Context,
    available: Annotated[
        bool, typer.Option("--available", help="List only teachers that can be added, with notes.")
    ] = False,
    domain: Annotated[str, typer.Option(help="Only teachers of this domain, such as xray.")] = "",
    license: Annotated[
        str, typer.Option(help="Only of this license, or class: permissive, non-commercial, no-derivatives ...")
    ] = "",
    kind: Annotated[str, typer.Option(help="Only image-text, image, text or answers.")] = "",
    size: Annotated[str, typer.Option(metavar="COUNT", help="Only with at most so many weights, such as 150M.")] = "",
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
) -> None:
    """List the chosen teachers, then those that can be added."""
    if context.invoked_subcommand is not None:
        return
    from kdkit.api.teachers import TeacherList
    from kdkit.core.project.registry.filters import TeacherFilter, parse_count

    only = TeacherFilter(domain, license, kind, parse_count(size) if size else None)
    console.emit(TeacherList.of(_project_if_any(folder), available=available, only=only), json=json)


def show_teacher(
    context: typer.Context, name: TeacherName, folder: console.ProjectOption = None, json: console.JsonOption = False
) -> None:
    """Print what is known about a teacher of the catalogue, and where each fact comes from."""
    from kdkit.api.teacher_facts import teacher_sheet

    before = context.parent.params if context.parent else {}  # options between ``teachers`` and ``show``
    folder, json = folder or before.get("folder"), console.json_errors(json or bool(before.get("json")))
    console.emit(teacher_sheet(name, _project_if_any(folder)), json=json)


def _project_if_any(folder: str | None) -> Project | None:
    """The opened project of ``--project`` or around the current folder; None if there is none around it."""
    from kdkit.core.project.project import Project

    try:
        return Project.find(folder or ".")
    except KdkitError as error:
        if folder is not None or error.id != "KD-PROJ-001":
            raise
        return None


def remove_teacher(name: TeacherName, folder: console.ProjectOption = None, json: console.JsonOption = False) -> None:
    """Remove a teacher from registry.yaml and registry.lock; its features, and what it taught, stay."""
    console.emit(console.project(folder).remove_teacher(name), json=json)


def lock(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")] = None,
    check: Annotated[bool, typer.Option("--check", help="Compare only; exit with 1 on differences.")] = False,
    offline: OfflineOption = False,
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
) -> None:
    """Download, check and lock what is not locked yet, or NAMEs again.

    These are the teachers of registry.yaml, and the models that its student starts from.
    The NAME of a loss, a loader ... is locked to the plugin that provides it now.
    """
    project = console.project(folder)
    if not check:
        console.emit(project.lock(names or (), offline=offline), json=json)
        return
    checked = project.check_lock()
    console.emit(checked, json=json)
    if not checked.ok:
        raise typer.Exit(ExitCode.FOUND)
