"""The data entry that reads shards, and ``--replace``, which writes it in the place of the entry that was read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.data.remote_files import is_url
from kdkit.core.data.shards.manifest import read_manifest
from kdkit.core.data.shards.plan import ShardReport, report_of
from kdkit.core.data.shards.request import READS, ShardRequest, named_path
from kdkit.core.project.project import Project
from kdkit.core.project.registry.edit_data import replace_data_entry
from kdkit.core.project.registry.load import check_registry, read_text
from kdkit.core.project.registry.render import flow

KEPT = ("frame", "max_pixels", "jpeg_min_side", "skip_unreadable", "verify")
"""Options of a data entry that hold for the shards too; all others have done their work when rows are written."""


def entry_of(project: Project, number: int, to: str) -> dict[str, Any]:
    """The data entry that reads the shards instead of the entry ``number``."""
    old = project.registry.data[number]
    found: dict[str, Any] = {"source": READS, "path": to}
    if old.license is not None:
        found["license"] = old.license
    kept: Mapping[str, Any] = {name: old.options[name] for name in KEPT if name in old.options}
    return {**found, "options": dict(kept)} if kept else found


def beside_registry(project: Project, folder: Path) -> str:
    """A path for registry.yaml: relative for a folder in or beside the project, so that both can move together."""
    root, real = os.path.realpath(project.root), os.path.realpath(folder)
    beside = real.startswith(os.path.dirname(root) + os.sep)
    return Path(os.path.relpath(real, root)).as_posix() if beside else real


def replace_entry(project: Project, number: int, to: Path) -> None:
    """Write the entry of the shards into registry.yaml, in the place of the entry that was read.

    Raises:
        KdkitError: the entry was changed while shards were written.
    """
    old, entry = project.registry.data[number], entry_of(project, number, beside_registry(project, to))
    with project.exclusive("kdkit data shards"):
        text = read_text(project.registry_path)
        now = check_registry(text).data
        if old not in now:
            raise KdkitError(
                "KD-DATA-590",
                "the data entry was changed while its samples were written",
                where=project.registry_path.name,
                why=f"it has no entry {old.source} {old.path} with the same options any more; the shards are complete",
                fix=f"write this in its place: - {flow(entry)}",
                code=ExitCode.FOUND,
            )
        place = number if now[number : number + 1] == [old] else now.index(old)
        write_atomically(project.registry_path, replace_data_entry(text, place, entry).encode())


def find_replaced(project: Project, request: ShardRequest) -> ShardReport | None:
    """The report of an earlier command with ``--replace`` that did all that this one asks for; else None.

    Raises:
        KdkitError: it had other options; a shard is gone or changed.
    """
    real = os.path.realpath(request.to)
    entries = [(str(number), one) for number, one in enumerate(project.registry.data, start=1)
               if one.source == READS and not is_url(one.path)
               and os.path.realpath(project.root / one.path) == real]  # fmt: skip
    manifest = read_manifest(request.to) if request.replace and len(entries) == 1 else None
    if manifest is None or not manifest.complete:
        return None
    number, entry = entries[0]
    made_of = manifest.made_of["data entry"]
    if request.entry not in ("", number, entry.path) and named_path(request.entry) != made_of["path"]:
        return None
    manifest.require({"options": request.settings()}, request.to)
    plain = {"source": entry.source, "path": entry.path, "license": entry.license, "options": dict(entry.options)}
    return report_of(manifest, request, {name: value for name, value in plain.items() if value}, 0)
