"""Fetch a repository into a folder, and verify every file against what the Hub says it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kdkit.core.base.atomic import disk_errors
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub.connection import Hub, Kind
from kdkit.core.base.hub.errors import hub_errors
from kdkit.core.base.hub.retry import with_retries
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.project.registry.lock import safe_relative
from kdkit.core.sharing.hub.client import quiet_client
from kdkit.core.sharing.hub.plan import Hashes, hash_file
from kdkit.core.sharing.hub.remote import RemoteFile, Repository, find_repository, list_files

Select = Callable[[Iterable[str]], Iterable[str]]
_RESERVED = (".cache", ".git")
"""Folders in which the client keeps its notes, and git its own."""


@dataclass(frozen=True)
class Downloaded:
    """What arrived.

    Attributes:
        folder: holds the files and nothing else.
        commit: 40 hex digits.
        files: path -> sha256 of the content on disk; each was compared with what the Hub says.
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
    """Fetch a repository at one commit. ``into`` appears whole and verified, or not at all; run again, it keeps the
    files that were complete.

    Args:
        hub: see :func:`connect`; public repositories need no token.
        repo: ``ORG/NAME``.
        kind: ``model`` or ``dataset``.
        revision: branch, tag or commit.
        into: must not exist, or be an empty folder.
        select: which of the paths to fetch; all by default.
        reporter: receives progress.

    Raises:
        KdkitError: no such repository or revision, no network (exit 3); gated, private (exit 4); a path that leads
            outside, content that is not what the Hub says (exit 1).
    """
    report, where = reporter or Silent(), f"{repo}@{revision}"
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise KdkitError(
            "KD-HUB-006", "something is already there", where=str(into), fix="give a folder that does not exist yet"
        )
    draft = into.parent / f".{into.name}.downloading"
    with disk_errors(str(into)), quiet_client(report), hub_errors(where, hub, page=hub.url(repo, kind)):
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
    """Bring each file into ``draft``; path -> sha256."""
    done, total, files = 0, sum(file.size for file in wanted.values()), {}
    for path, file in wanted.items():
        report.progress("fetching", done, total + 1, path)
        hashes = hash_file(draft / path) if (draft / path).is_file() else None
        for again in (False, True):
            if hashes is None or not _as_said(hashes, file):
                _fetch(hub, there, path, draft, again=again)
                hashes = hash_file(draft / path)
        if hashes is None or not _as_said(hashes, file):
            (draft / path).unlink(missing_ok=True)
            raise KdkitError(
                "KD-HUB-007",
                f"'{path}' is not what the Hub says it is; nothing was written",
                where=f"{there.name}@{there.commit[:12]}",
                why=f"its content was changed on the way, or on the Hub: sha256 {hashes.sha256 if hashes else 'none'}",
                fix=f"look at {hub.url(there.name, there.kind, there.commit)}; try another network or endpoint",
                code=ExitCode.FOUND,
            )
        files[path] = hashes.sha256
        done += file.size
    report.progress("fetching", 1, 1)
    return files


def _fetch(hub: Hub, there: Repository, path: str, draft: Path, *, again: bool) -> None:
    """Bring one file, once more from its start if it was wrong.

    When a connection breaks off the client asks for the rest; what a process that died had of a file is lost.
    """

    def fetch() -> None:
        hub.api.hf_hub_download(
            there.name,
            path,
            repo_type=there.kind,
            revision=there.commit,
            local_dir=draft,
            force_download=again,
        )

    with_retries(fetch)


def _as_said(found: Hashes, file: RemoteFile) -> bool:
    return found.sha256 == file.sha256 if file.sha256 else found.git_sha1 == file.git_sha1


def _check_path(path: str, where: str) -> None:
    try:
        safe_relative(path)
        inside = PurePosixPath(path).parts[0] not in _RESERVED
    except ValueError:
        inside = False
    if not inside:
        raise KdkitError(
            "KD-HUB-008",
            f"it holds a file named '{path}'; a Hub that sends this is not to be trusted",
            where=where,
            why="it leads outside the folder, or into what belongs to other programs",
            code=ExitCode.FOUND,
            fix="fetch from another endpoint, and report it to the owner of this one",
        )


def _not_found(hub: Hub, repo: str, kind: Kind, revision: str) -> KdkitError:
    """The error for a repository that is not there; perhaps one of the other kind is."""
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
    """Delete the client's notes, and what an earlier, interrupted run fetched that is not wanted any more."""
    kept = {folder / path for path in wanted}
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in kept:
            path.unlink()
