"""What a repository holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from kdkit.core.base.hub.connection import Hub, Kind
from kdkit.core.base.hub.retry import with_retries


@dataclass(frozen=True)
class Repository:
    """A repository at one commit."""

    name: str
    kind: Kind
    commit: str
    private: bool


class Content(Protocol):
    """Hex digests of a content."""

    @property
    def sha256(self) -> str: ...
    @property
    def git_sha1(self) -> str: ...


@dataclass(frozen=True)
class RemoteFile:
    """A file as the Hub lists it. ``sha256`` is known for large files, ``git_sha1`` is that of small files' content."""

    path: str
    size: int
    sha256: str | None
    git_sha1: str

    def has(self, content: Content) -> bool:
        """Whether it has the same content."""
        return content.sha256 == self.sha256 if self.sha256 else content.git_sha1 == self.git_sha1


def find_repository(hub: Hub, repo: str, kind: Kind, revision: str) -> Repository | None:
    """The repository at ``revision``, or None where there is none (or none that this token may see)."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        info = with_retries(lambda: hub.api.repo_info(repo, repo_type=kind, revision=revision))
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return None
    return Repository(repo, kind, str(info.sha), bool(info.private))


def list_files(hub: Hub, there: Repository, commit: str | None = None) -> dict[str, RemoteFile]:
    """Path -> file, at ``commit`` (by default the one that was looked at)."""
    from huggingface_hub.hf_api import RepoFile

    def listing() -> list[RepoFile]:
        tree = hub.api.list_repo_tree(there.name, recursive=True, revision=commit or there.commit, repo_type=there.kind)
        return [entry for entry in tree if isinstance(entry, RepoFile)]

    return {
        entry.path: RemoteFile(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id)
        for entry in with_retries(listing)
    }


Listing = tuple[Repository | None, Mapping[str, RemoteFile]]
"""A repository at one commit, and its files."""


def look_at(hub: Hub, repo: str, kind: Kind, revision: str) -> Listing:
    """The repository and its files; None and nothing where there is none."""
    there = find_repository(hub, repo, kind, revision)
    return there, list_files(hub, there) if there else {}
