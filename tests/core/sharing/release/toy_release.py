"""The release of a toy student, which stock libraries do not know: what ``kdkit push`` would write of any student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kdkit
from kdkit.core.base.hub import Hub
from kdkit.core.project.project import Project
from kdkit.core.project.registry.lock import Lock
from kdkit.core.project.versions import Versions
from kdkit.core.sharing.release.layout import LOCK, README, RECIPE, REGISTRY, SAMPLES, TASK, Record
from kdkit.core.sharing.release.pull import Pulled, pull_student
from kdkit.core.sharing.release.redact import public_lineage, public_lock, public_registry
from tests.local_hub import LocalHub
from tests.toy_project import toy_catalogue

REPO = "alice/student"


def write_release(project: Project, repo: str, to: Path) -> Record:
    """Write the current version's release into the new folder ``to``."""
    versions = Versions(project)
    version = versions.get()
    names = tuple(sorted(path.name for path in version.student_folder.iterdir()))
    for name in names:
        _put(to / name, (version.student_folder / name).read_bytes())
    for name in (TASK, SAMPLES):
        _put(to / name, (version.folder / Path(name).name).read_bytes())
    _put(to / README, b"# A toy\n")
    _put(to / RECIPE, (project.root / project.registry.recipe).read_bytes())
    _put(to / REGISTRY, json.dumps(public_registry(project.registry, recipe="./recipe.yaml")).encode())
    public_lock(Lock.load(project.lock_path), list(project.registry.teachers)).save(to / LOCK)
    record = Record(
        kdkit=kdkit.__version__,
        version=version.name,
        repository=repo,
        license="mit",
        student=names,
        history=tuple(public_lineage(lineage) for lineage in versions.history(version)),
        checks={},
        environment={},
        origin=None,
    )
    return seal(to, record)


def seal(folder: Path, record: Record) -> Record:
    """Write ``kdkit.json`` with the hashes of what the folder holds now."""
    return record.save(folder)


def contents(folder: Path) -> dict[str, bytes]:
    """Path -> content of every file."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(paths)}


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def pull(local: LocalHub, into: Path, **options: Any) -> Pulled:
    """As alice, with the plugins of the toys."""
    return pull_student(REPO, into, hub=Hub(local.url, "hf_alice"), catalogue=toy_catalogue(), **options)
