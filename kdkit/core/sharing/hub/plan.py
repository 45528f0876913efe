"""Plan a push: compare a folder with a repository by hash, without writing anything."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub.connection import Hub, Kind
from kdkit.core.base.hub.errors import hub_errors
from kdkit.core.sharing.hub.remote import Listing, RemoteFile, look_at

__all__ = ["Kind", "LocalFile", "UploadPlan", "plan_upload"]

KEPT = (".gitattributes",)
"""Files of the Hub itself; never deleted."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Hashes:
    """Hex digests of a content; ``git_sha1`` identifies it in git, and small files on the Hub."""

    sha256: str
    git_sha1: str


def hash_file(path: Path) -> Hashes:
    """Both digests in one pass."""
    sha256 = hashlib.sha256()
    git_sha1 = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            sha256.update(chunk)
            git_sha1.update(chunk)
    return Hashes(sha256.hexdigest(), git_sha1.hexdigest())


@dataclass(frozen=True)
class LocalFile:
    """A file at planning time.

    Attributes:
        path: relative to the folder, POSIX.
        size: bytes.
        sha256, git_sha1: of its content; the latter is its blob id in git and on the Hub.
        stamp: inode, size and time of the last change, to detect later changes.
    """

    path: str
    size: int
    sha256: str
    git_sha1: str
    stamp: tuple[int, int, int]

    def equals(self, remote: RemoteFile) -> bool:
        """Whether the repository holds the same content."""
        return remote.has(self)


@dataclass(frozen=True)
class UploadPlan:
    """One commit to come. Made by :func:`plan_upload`, executed by :func:`kdkit.core.sharing.hub.upload.upload`.

    Attributes:
        endpoint: the plan is for this Hub alone.
        repo, kind, revision: where to.
        folder: what is pushed; the repository will hold exactly this (and ``.gitattributes``).
        parent: the commit that was compared with; None: there is no such repository yet.
        visibility: of the existing repository, or None.
        adds, updates: files to send.
        unchanged: files that are there already.
        deletes: paths that are in the repository and not in the folder.
        kept: such paths that stay, since no push wrote them as they are.
    """

    endpoint: str
    repo: str
    kind: Kind
    revision: str
    folder: Path
    parent: str | None
    visibility: Literal["private", "public"] | None
    adds: tuple[LocalFile, ...]
    updates: tuple[LocalFile, ...]
    unchanged: tuple[LocalFile, ...]
    deletes: tuple[str, ...]
    kept: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[LocalFile, ...]:
        """All of the folder, sorted by path."""
        return tuple(sorted((*self.adds, *self.updates, *self.unchanged), key=lambda file: file.path))

    @property
    def to_send(self) -> tuple[LocalFile, ...]:
        """Adds and updates, sorted by path."""
        return tuple(sorted((*self.adds, *self.updates), key=lambda file: file.path))

    @property
    def size(self) -> int:
        """Bytes of the files to send; the Hub skips content that it already has."""
        return sum(file.size for file in self.to_send)

    @property
    def empty(self) -> bool:
        """Nothing to do: the repository holds this folder."""
        return not (self.adds or self.updates or self.deletes)

    def without_changes(self) -> UploadPlan:
        """The same plan for a repository that needs no change."""
        return replace(self, adds=(), updates=(), deletes=(), unchanged=self.files)

    def to_json(self) -> dict[str, Any]:
        """For ``--json``: paths and sizes."""
        return {
            "endpoint": self.endpoint,
            "repository": self.repo,
            "kind": self.kind,
            "revision": self.revision,
            "parent": self.parent,
            "visibility": self.visibility,
            "adds": {file.path: file.size for file in self.adds},
            "updates": {file.path: file.size for file in self.updates},
            "deletes": list(self.deletes),
            "kept": list(self.kept),
            "unchanged": [file.path for file in self.unchanged],
            "bytes": self.size,
        }


def plan_upload(
    hub: Hub, repo: str, kind: Kind, folder: Path, *, revision: str = "main", seen: Listing | None = None
) -> UploadPlan:
    """Compare ``folder`` with the repository; nothing is written, here or there.

    Args:
        hub: see :func:`connect`; to see a private repository it needs a token.
        repo: ``ORG/NAME``.
        kind: ``model`` or ``dataset``.
        folder: every regular file in it, hidden ones too (not ``.git`` and ``.cache``).
        revision: a branch, or ``refs/pr/N`` to go on with a pull request.
        seen: the repository and its files as they were looked at; a later commit of others stops the upload.

    Raises:
        KdkitError: the folder is empty or holds a link; a bad name; a revision that does not exist; the Hub refuses
            or cannot be reached.
    """
    local = {}
    for name in sorted(_walk(folder)):
        stamp, hashes = stamp_of(folder / name), hash_file(folder / name)
        local[name] = LocalFile(name, stamp[1], hashes.sha256, hashes.git_sha1, stamp)
    if not local:
        raise KdkitError(
            "KD-HUB-038",
            "there is nothing to push",
            where=str(folder),
            why="the folder holds no file",
            fix="check the folder",
        )
    with hub_errors(f"{repo}@{revision}", hub, page=hub.url(repo, kind)):
        there, remote = seen or look_at(hub, repo, kind, revision)
    same = {path for path, file in local.items() if path in remote and file.equals(remote[path])}
    return UploadPlan(
        endpoint=hub.endpoint,
        repo=repo,
        kind=kind,
        revision=revision,
        folder=folder,
        parent=there.commit if there else None,
        visibility=None if there is None else "private" if there.private else "public",
        adds=tuple(file for path, file in local.items() if path not in remote),
        updates=tuple(file for path, file in local.items() if path in remote and path not in same),
        unchanged=tuple(file for path, file in local.items() if path in same),
        deletes=tuple(sorted(path for path in remote if path not in local and path not in KEPT)),
    )


def check_unchanged(plan: UploadPlan) -> None:
    """Raises: KdkitError (exit 1) when a file changed, appeared or disappeared since the plan."""
    now = {path: stamp_of(plan.folder / path) for path in _walk(plan.folder)}
    then = {file.path: file.stamp for file in plan.files}
    changed = sorted(path for path in now.keys() | then.keys() if now.get(path) != then.get(path))
    if changed:
        raise changed_locally(plan, changed)


def changed_locally(plan: UploadPlan, paths: list[str]) -> KdkitError:
    """The error for files that changed between plan and commit."""
    return KdkitError(
        "KD-HUB-039",
        "local files have changed since the push was planned; nothing was committed",
        where=str(plan.folder),
        why=first_few(paths),
        fix="run the push again",
        code=ExitCode.FOUND,
    )


def first_few(paths: Sequence[str], limit: int = 5) -> str:
    """``a, b and 3 more``."""
    more = len(paths) - limit
    return ", ".join(paths[:limit]) + (f" and {more} more" if more > 0 else "")


def stamp_of(path: Path) -> tuple[int, int, int]:
    """Inode, size and modification time: they change when a file is written."""
    facts = path.stat()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def _walk(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        here = Path(parent)
        for name in [*folders, *files]:
            if (here / name).is_symlink():
                raise KdkitError(
                    "KD-HUB-040",
                    f"'{(here / name).relative_to(folder)}' is a link",
                    where=str(folder),
                    why="only files are pushed",
                    fix="put the file itself there",
                )
        folders[:] = sorted(name for name in folders if name not in (".git", ".cache"))
        yield from ((here / name).relative_to(folder).as_posix() for name in files)
