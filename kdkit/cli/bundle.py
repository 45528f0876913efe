"""``kdkit bundle`` and ``kdkit unbundle``: a project for a place without network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdkit.cli import console

if TYPE_CHECKING:
    from kdkit.core.sharing.bundle import Manifest, Share

EVERYTHING = "teachers,features,versions"


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("bundle")(bundle)
    app.command("unbundle")(unbundle)


def bundle(
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The archive to make, such as project.tar.")],
    parts: Annotated[
        str, typer.Option("--with", metavar="PARTS", help="What goes in, besides the registry.")
    ] = EVERYTHING,
    all_versions: Annotated[
        bool, typer.Option("--all-versions", help="Every version of the student, not the current one alone.")
    ] = False,
    wheels: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder of wheels ('pip download') to take along.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go in; write nothing.")] = False,
    folder: console.ProjectOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Write the project as one archive with the hash of every file. Images and captions never go in."""
    from kdkit.core.sharing.bundle import collect, pack, shares

    project, reporter = console.project(folder), console.reporter()
    chosen = [part.strip() for part in parts.split(",") if part.strip()]
    if dry_run:
        items = collect(project, chosen, all_versions=all_versions, wheels=wheels, reporter=reporter)
        inside = shares((item.path, item.size) for item in items)
        console.emit({"contents": _rows(inside)}, json=as_json, text=lambda: _table(inside))
        return
    done = pack(project, to, chosen, all_versions=all_versions, wheels=wheels, reporter=reporter)
    inside = shares((file.path, file.size) for file in done.manifest.files)
    data = {"archive": done.archive, "size": done.size, **_facts(done.manifest)}
    console.emit(
        data,
        json=as_json,
        text=lambda: f"{_table(inside)}\n\n{done.archive}: {console.size(done.size)}\n{_fingerprint(done.manifest)}",
    )
    if any(share.part in ("features", "version") for share in inside):
        console.say("features and versions hold ids of samples, as the data names them; no image, no caption")


def unbundle(
    archive: Annotated[Path, typer.Argument(metavar="FILE", help="What 'kdkit bundle' wrote.")],
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="The project to make (default: FILE without its ending).")
    ] = None,
    max_size: Annotated[
        float | None, typer.Option(metavar="GB", min=0, help="Refuse what would take more disk.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every byte; write nothing.")] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Make a project of a bundle, if every file in it is as its manifest says. Nothing is left of one that is not."""
    from kdkit.core.project.project import Project
    from kdkit.core.sharing.bundle import check, check_target, missing_here, unpack

    folder, reporter = to or Path(archive.name.partition(".")[0]), console.reporter()
    limit = None if max_size is None else int(max_size * 1e9)
    if dry_run:
        manifest = check(archive, reporter=reporter)
        check_target(folder.absolute(), manifest, limit)
        absent = []
    else:
        manifest = unpack(archive, folder, max_size=limit, reporter=reporter)
        absent = [entry.path for entry in Project(folder).registry.data if not (folder / entry.path).exists()]
    missing = list(missing_here(manifest.requirements))
    data = {
        "folder": folder.absolute(),
        **_facts(manifest),
        "missing": missing,
        "install": _install(manifest, folder, missing) if missing else None,
        "absent_data": absent,
    }
    console.emit(data, json=as_json, text=lambda: _unpacked(manifest, folder, missing, absent))


def _facts(manifest: Manifest) -> dict[str, object]:
    from kdkit.core.sharing.bundle import senders, shares

    return {
        "fingerprint": manifest.fingerprint,
        "kdkit": manifest.kdkit,
        "created": manifest.created,
        "requirements": list(manifest.requirements),
        "sends_samples": list(senders(manifest)),
        "contents": _rows(shares((file.path, file.size) for file in manifest.files)),
    }


def _rows(inside: Sequence[Share]) -> list[dict[str, object]]:
    return [{"part": s.part, "name": s.name, "files": s.files, "bytes": s.bytes} for s in inside]


def _table(inside: Sequence[Share]) -> str:
    cells = [(s.part, s.name or "-", s.files, console.size(s.bytes)) for s in inside]
    total = ("total", "", sum(s.files for s in inside), console.size(sum(s.bytes for s in inside)))
    return console.table(("part", "name", "files", "size"), [*cells, total], "llrr")


def _fingerprint(manifest: Manifest) -> str:
    return f"fingerprint {manifest.fingerprint}"


def _unpacked(manifest: Manifest, folder: Path, missing: Sequence[str], absent: Sequence[str]) -> str:
    from kdkit.core.sharing.bundle import shares

    inside = shares((file.path, file.size) for file in manifest.files)
    lines = [_table(inside), "", f"made by kdkit {manifest.kdkit}, {manifest.created}", _fingerprint(manifest)]
    if missing:
        lines += [f"missing here: {', '.join(missing)}", f"  {_install(manifest, folder, missing)}"]
    if absent:
        lines.append(f"no data is inside; registry.yaml wants it at: {', '.join(absent)}")
    return "\n".join(lines)


def _install(manifest: Manifest, folder: Path, missing: Sequence[str]) -> str:
    """The command for a shell; from the wheels that are inside, if there are any."""
    from kdkit.core.sharing.bundle import shares

    command = f"kdkit install {' '.join(missing)}"
    if not any(share.part == "wheels" for share in shares((file.path, file.size) for file in manifest.files)):
        return command
    return f"PIP_NO_INDEX=1 PIP_FIND_LINKS={(folder.absolute() / 'wheels').as_uri()} {command}"
