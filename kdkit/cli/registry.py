"""``kdkit init``, ``add-teacher``, ``teachers``, ``remove-teacher`` and ``lock``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdkit.cli import console
from kdkit.core.base.errors import ExitCode, KdkitError

if TYPE_CHECKING:
    from kdkit.core.project.registry.listing import TeacherRow
    from kdkit.core.project.registry.lock import LockedTeacher
    from kdkit.core.teachers import Addition

OfflineOption = Annotated[bool, typer.Option("--offline", help="Use the Hub's cache alone.")]
SHOWN = 4
"""Domains of a teacher that its row shows."""
TeacherName = Annotated[str, typer.Argument(metavar="NAME")]


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("init")(init)
    app.command("add-teacher")(add_teacher)
    app.command("teachers")(list_teachers)
    app.command("remove-teacher")(remove_teacher)
    app.command("lock")(lock)


def init(folder: Annotated[Path, typer.Argument(metavar="[DIR]")] = Path()) -> None:
    """Make a project: write a commented registry.yaml."""
    from kdkit.core.project.registry.create import create_project

    made = create_project(folder)
    console.say(f"{made.registry_path} is yours to read and edit")
    console.say("next: kdkit add-teacher biomedclip, or kdkit teachers --available")


def add_teacher(
    name: TeacherName,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="SOURCE", help="hf:ORG/REPO[@REV], local:DIR or package:PKG/DIR."),
    ] = None,
    loader: Annotated[
        str | None, typer.Option(help="open_clip, transformers or a plugin's; guessed from the files.")
    ] = None,
    domains: Annotated[str | None, typer.Option(metavar="A,B", help="Let it teach these domains at most.")] = None,
    license: Annotated[str | None, typer.Option(help="The license, where its files do not say it.")] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Ask it while training; store nothing of training samples.")
    ] = False,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An option of the loader; may be repeated.")
    ] = None,
    offline: OfflineOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
) -> None:
    """Fetch a teacher, check that it works and may be used, lock it, and write it into registry.yaml."""
    from kdkit.core import teachers

    provider, _, name = name.rpartition(":")
    fields: dict[str, Any] = {
        "provider": provider or None,
        "from": source,
        "loader": loader,
        "options": dict(_option(text) for text in option or ()),
        "domains": _names(domains) if domains is not None else None,
        "license": license,
        "signals": "live" if live else None,
    }
    fields = {key: value for key, value in fields.items() if value not in (None, {})}
    project, reporter = console.project(folder), console.reporter()
    if dry_run:
        planned = teachers.plan_addition(project, name, fields, offline=offline, reporter=reporter)
        console.emit(_plan_data(planned), json=json, text=lambda: _plan_text(planned))
        return
    locked = teachers.add_teacher(project, name, fields, offline=offline, reporter=reporter)
    console.emit(
        {"name": name, **locked.model_dump(mode="json")}, json=json, text=lambda: _locked_text(name, locked, license)
    )


def list_teachers(
    available: Annotated[
        bool, typer.Option("--available", help="List what can be added, with the catalogue's notes.")
    ] = False,
    folder: console.ProjectOption = None,
    json: console.JsonOption = False,
) -> None:
    """List the chosen teachers and those that can be added, with what is known about them."""
    from dataclasses import asdict

    from kdkit.core.plugin_system.discovery import load_catalogue
    from kdkit.core.project.project import Project
    from kdkit.core.project.registry.listing import available_rows, chosen_rows

    try:
        project = Project.find(folder or ".")
    except KdkitError:
        if folder is not None:
            raise
        project = None  # the catalogue can be read anywhere
    chosen = chosen_rows(project) if project else []
    use = project.registry.use if project else "research"
    catalogue = project.catalogue if project else load_catalogue()
    others = available_rows(catalogue, use, frozenset(row.name for row in chosen))
    rows = others if available else [*chosen, *others]
    data = {"use": use, "teachers": [asdict(row) for row in rows]}
    console.emit(data, json=json, text=lambda: _teachers_text([] if available else chosen, others, use, available))


def remove_teacher(name: TeacherName, folder: console.ProjectOption = None) -> None:
    """Take a teacher out of registry.yaml and registry.lock; what it taught, and its cached features, stay."""
    from kdkit.core import teachers

    project = console.project(folder)
    teachers.remove_teacher(project, name)
    console.say(f"removed '{name}'; its cached features stay in {project.features / name}")


def lock(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")] = None,
    check: Annotated[bool, typer.Option("--check", help="Compare, change nothing; exit 1 on differences.")] = False,
    offline: OfflineOption = False,
    folder: console.ProjectOption = None,
) -> None:
    """Fetch, probe and lock the teachers of registry.yaml that are not locked yet, or NAMEs afresh.

    A NAME that is pinned (a loss, a loader ...) is taken from whoever provides it now.
    """
    from kdkit.core import teachers

    project = console.project(folder)
    if check:
        problems = teachers.check_lock(project)
        for problem in problems:
            console.say(problem)
        console.say(f"{len(problems)} problem(s)" if problems else "registry.yaml, registry.lock and files agree")
        raise typer.Exit(ExitCode.FOUND if problems else ExitCode.OK)
    locked = teachers.lock_teachers(project, names or (), offline=offline, reporter=console.reporter())
    for name, facts in locked.items():
        console.say(_locked_text(name, facts, project.registry.teachers[name].license))
    if not (locked or names):
        here = "every teacher is locked already; name one to lock it afresh"
        console.say(here if project.registry.teachers else "there are no teachers; 'kdkit add-teacher NAME' adds one")
    for family, providers in project.reloaded().lock.providers.items():
        for name in names or ():
            if name in providers:
                console.say(f"{family} '{name}': from {providers[name]}")


def _option(text: str) -> tuple[str, Any]:
    """``key=value``; the value is read as JSON where it is JSON, else it is a string."""
    from json import loads

    key, equals, value = text.partition("=")
    if not (key and equals):
        raise KdkitError(
            "KD-CLI-011", f"'{text}' is not KEY=VALUE", where="--option", fix="for example --option precision=bf16"
        )
    try:
        return key, loads(value)
    except ValueError:
        return key, value


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _locked_text(name: str, locked: LockedTeacher, stated: str | None) -> str:
    """``stated``: the license that the registry asserts."""
    dims = ", ".join(f"{signal} {dim}" for signal, dim in locked.dims.items()) or "answers, no signals"
    seen = f"{locked.license.name} ({locked.license.evidence})" if locked.license else "not stated in its files"
    license = f"{stated} (you say so); {seen}" if stated else seen
    size = sum(file.size for file in locked.files.values())
    commit = f" at {locked.commit[:12]}" if locked.commit else ""
    files = f"{len(locked.files)} file{'s' * (len(locked.files) != 1)}, {console.size(size)}"
    return f"{name}: {locked.source}{commit}, {files}; loader {locked.loader}; {dims}; license: {license}"


def _plan_data(planned: Addition) -> dict[str, Any]:
    return {
        "name": planned.chosen.name,
        "source": planned.chosen.source,
        "loader": planned.chosen.loader or None,
        "bytes": sum(size or 0 for size in planned.sizes.values()),
        "files": dict(planned.sizes),
        "registry_diff": planned.diff,
    }


def _plan_text(planned: Addition) -> str:
    total = console.size(sum(size or 0 for size in planned.sizes.values()))
    files = [[name, "?" if size is None else console.size(size)] for name, size in planned.sizes.items()]
    return "\n".join(
        [
            f"would fetch {total} from {planned.chosen.source}, probe it, and lock it:",
            console.table(["file", "size"], files, "lr"),
            "",
            planned.diff.rstrip("\n"),
        ]
    )


def _teachers_text(chosen: list[TeacherRow], others: list[TeacherRow], use: str, available: bool) -> str:
    parts = []
    if chosen:
        parts += [f"chosen (this project's use: {use})", _table(chosen), ""]
        notes_of_chosen = [f"{row.name}: {row.note}" for row in chosen if row.state == "unavailable"]
        parts += [*notes_of_chosen, ""] if notes_of_chosen else []
    if available:
        parts += [_table(others), ""]
        parts += [f"{row.name}: {'; '.join(filter(None, (row.reason, row.note)))}" for row in others]
        return "\n".join(parts)
    ready = [row for row in others if row.state == "available"]
    parts += ["can be added: kdkit add-teacher NAME", _table(ready), ""]
    parts += [f"{len(others) - len(ready)} more need a plugin; what is known of all: kdkit teachers --available"]
    return "\n".join(parts)


def _some(domains: Sequence[str]) -> str:
    """As many as keep the table narrow; ``--json`` has all."""
    more = len(domains) - SHOWN
    return (", ".join(domains[:SHOWN]) + (f", {more} more" if more > 0 else "")) or "-"


def _table(rows: list[TeacherRow]) -> str:
    cells = [
        [
            row.name,
            row.state,
            "/".join("?" if dim is None else str(dim) for dim in dict.fromkeys(row.dims.values())) or "?",
            _some(row.domains),
            row.license,
            row.distillation,
            row.summary or row.source,
        ]
        for row in rows
    ]
    return console.table(["teacher", "state", "width", "domains", "license", "distillation", "what"], cells, "llrllll")
