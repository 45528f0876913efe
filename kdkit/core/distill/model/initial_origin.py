"""Where the weights that ``init`` of the student's config names come from: repository, license, files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.distill.model.student import anchored
from kdkit.core.project.licenses import LicenseFacts
from kdkit.core.project.lineage import InitialWeights
from kdkit.core.project.registry.chosen import chosen_teacher
from kdkit.core.project.registry.lock import NOT_PUBLISHED
from kdkit.core.teachers.initial_weights import TEACHER, initial_digests, initial_parts, named_models, source_of
from kdkit.core.teachers.license import read_license

if TYPE_CHECKING:
    from kdkit.core.project.project import Project

_SNAPSHOT = re.compile(r"models--(?P<repo>.+)/snapshots/[0-9a-f]{40}")
"""A folder of the Hub's cache."""
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
"""``ORG/NAME``, and no path."""


def initial_weights_of(project: Project, config: Mapping[str, Any]) -> InitialWeights | None:
    """Where the weights that a student's config names come from, with their license; None if they are random or
    unknown."""
    init = config.get("init")
    named = sorted(init.items()) if isinstance(init, Mapping) else [("", init)]
    folders = [folder for _, folder in named if isinstance(folder, str) and folder != NOT_PUBLISHED]
    if not folders:  # the license of the release binds instead
        return None
    stated = str(config.get("base", ""))  # of a download
    first, *others = (_weights_of(project, folder, stated) for folder in folders)
    return replace(first, beside=tuple(others))


def initial_files(project: Project) -> dict[str, str]:
    """File -> sha256 of all files that the student starts from, without cards and license texts.

    ``NAME/FILE`` of a model of the catalogue or a teacher, ``init/FILE`` (of a tower: ``init.image/FILE``) of a folder.
    """
    digests, names, found = initial_digests(project), named_models(project), dict[str, str]()
    for key, part in initial_parts(project).items():
        shown, start = part if part in names or part.startswith(TEACHER) else key, f"{part}/"
        found |= {f"{shown}/{file.removeprefix(start)}": x for file, x in digests.items() if file.startswith(start)}
    return found


def _weights_of(project: Project, init: str, stated: str) -> InitialWeights:
    """Initial weights in the folder ``init`` of a student's config; ``stated``: the repository that it names."""
    if (found := source_of(project, init)) is not None:
        chosen, files = found
        known = chosen.license_facts(files.license, gated=files.gated)
        return InitialWeights(repository_of(files.source), known)
    folder = Path(anchored(init, project.root)).absolute()
    lock = project.lock
    for name, facts in lock.teachers.items():
        if folder == (project.artifacts / name).absolute():
            known = LicenseFacts(seen=facts.license.name if facts.license else None, gated=facts.gated)
            if name in project.registry.teachers:
                known = chosen_teacher(project, name).license_facts(facts.license, gated=facts.gated)
            return InitialWeights(repository_of(facts.source), known)
    seen, gated = read_license(folder) if folder.is_dir() else (None, False)
    snapshot = _SNAPSHOT.search(folder.as_posix())
    repository = snapshot["repo"].replace("--", "/", 1) if snapshot else stated if _NAME.fullmatch(stated) else ""
    return InitialWeights(repository, LicenseFacts(seen=seen.name if seen else None, gated=gated))


def repository_of(source: str) -> str:
    """``ORG/NAME`` of ``hf:ORG/NAME[@REV]``; else empty.

    Example:
        >>> repository_of("hf:org/name@main"), repository_of("local:weights")
        ('org/name', '')
    """
    kind, _, place = source.partition(":")
    return place.partition("@")[0] if kind == "hf" else ""
