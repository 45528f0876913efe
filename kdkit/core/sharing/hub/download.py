"""Fetch a repository into a folder and verify every file against the Hub's hashes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub.connection import Hub, Kind
from kdkit.core.base.hub.errors import hub_errors
from kdkit.core.base.hub.retry import with_retries
from kdkit.core.base.system_errors import system_errors
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.project.registry.lock import safe_relative
from kdkit.core.sharing.hub.client import quiet_client
from kdkit.core.sharing.hub.plan import hash_file
from kdkit.core.sharing.hub.remote import RemoteFile, Repository, find_repository, list_files

Select = Callable[[Iterable[str]], Iterable[str]]
_RESERVED = (".cache", ".git")
"""Folders of the client and of git."""


@dataclass(frozen=True)
class Downloaded:
    """A verified download.

    Attributes:
        folder: holds the files and nothing else.
        commit: 40 hex digits.
        files: path -> sha256 of the content on disk.
    """

    folder: Path
    commit: str
    files: Mapping[str, str]


def download(
    hub: Hub,
    repo: str,
    kind: Kind,
    revision: str,
    into: Path,
    *,
    select: Select | None = None,
    reporter: Reporter | None = None,
) -> Downloaded:
    """Fetch a repository at one commit. ``into`` appears whole and verified, or not at all; complete files of an
    interrupted run are reused.

    Args:
        hub: see :func:`connect`; public repositories need no token.
        repo: ``ORG/NAME``.
        kind: ``model`` or ``dataset``.
        revision: branch, tag or commit.
        into: must not exist, or be an empty folder.
        select: which of the paths to fetch; all by default.
        reporter: receives progress.

    Raises:
        KdkitError: no such repository or revision, no network (exit 3); gated, private (exit 4); a path outside the
            folder, content with another hash (exit 1).
    """
    report, where = reporter or Silent(), f"{repo}@{revision}"
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise KdkitError(
            "KD-HUB-006", "something is already there", where=str(into), fix="give a folder that does not exist yet"
        )
    draft = into.parent / f".{into.name}.downloading"
    with system_errors(str(into)), quiet_client(report), hub_errors(where, hub, page=hub.url(repo, kind)):
        there = find_repository(hub, repo, kind, revision)
        if there is None:
            raise _not_found(hub, repo, kind, revision)
        listed = list_files(hub, there)
        for path in listed:
            _check_path(path, where)
        wanted = {path: listed[path] for path in sorted(select(listed) if select else listed)}
        draft.mkdir(parents=True, exist_ok=True)
        files = _fetch_all(hub, there, wanted, draft, report)
        _leave_only(draft, wanted)
        os.replace(draft, into)
    return Downloaded(into, there.commit, files)


def _fetch_all(
    hub: Hub, there: Repository, wanted: Mapping[str, RemoteFile], draft: Path, report: Reporter
) -> dict[str, str]:
    """Fetch each file into ``draft``; returns path -> sha256."""
    done, total, files = 0, sum(file.size for file in wanted.values()), {}
    for path, file in wanted.items():
        report.progress("fetching", done, total + 1, path)
        hashes = hash_file(draft / path) if (draft / path).is_file() else None
        for again in (False, True):
            if hashes is None or not file.has(hashes):
                _fetch(hub, there, path, draft, again=again)
                hashes = hash_file(draft / path)
        if hashes is None or not file.has(hashes):
            (draft / path).unlink(missing_ok=True)
            raise KdkitError(
                "KD-HUB-007",
                f"'{path}' differs from the Hub's listing; nothing was written",
                where=f"{there.name}@{there.commit[:12]}",
                why=f"its content was changed in transit or on the Hub: sha256 {hashes.sha256 if hashes else 'none'}",
                fix=f"look at {hub.url(there.name, there.kind, there.commit)}; try another network or endpoint",
                code=ExitCode.FOUND,
            )
        files[path] = hashes.sha256
        done += file.size
    report.progress("fetching", 1, 1)
    return files


def _fetch(hub: Hub, there: Repository, path: str, draft: Path, *, again: bool) -> None:
    """Fetch one file; ``again``: from its start. The client resumes after connection errors, not after its death."""
    target: dict[str, Any] = {"repo_type": there.kind, "revision": there.commit, "local_dir": draft}
    with_retries(lambda: hub.api.hf_hub_download(there.name, path, force_download=again, **target))


def _check_path(path: str, where: str) -> None:
    try:
        safe_relative(path)
        inside = PurePosixPath(path).parts[0] not in _RESERVED
    except ValueError:
        inside = False
    if not inside:
        raise KdkitError(
            "KD-HUB-008",
            f"the Hub lists the unsafe path '{path}'; do not trust this Hub",
            where=where,
            why="it leads outside the folder, or into a folder of another program",
            code=ExitCode.FOUND,
            fix="fetch from another endpoint, and report it to the owner of this one",
        )


def _not_found(hub: Hub, repo: str, kind: Kind, revision: str) -> KdkitError:
    """The error for a missing repository; mentions one of the other kind."""
    other: Kind = "dataset" if kind == "model" else "model"
    if find_repository(hub, repo, other, "main") is not None:
        return KdkitError(
            "KD-HUB-009",
            f"this is a {other}, not a {kind}",
            where=repo,
            fix=f"see {hub.url(repo, other)}",
            code=ExitCode.MISSING,
        )
    return KdkitError(
        "KD-HUB-010",
        "not found on the Hub",
        where=f"{repo}@{revision}",
        why="no such repository, or a private one that this token may not see" if hub.token else hub.withheld,
        fix=f"check the name at {hub.url(repo, kind)}; for a private one {hub.how_to_log_in}",
        code=ExitCode.MISSING,
    )


def _leave_only(folder: Path, wanted: Iterable[str]) -> None:
    """Delete the client's cache, and unwanted files of an interrupted run."""
    kept = {folder / path for path in wanted}
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in kept:
            path.unlink()
