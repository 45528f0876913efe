"""What the Hub remembers: accounts, repositories, commits, branches, tags, pull requests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

Kind = Literal["model", "dataset"]
Role = Literal["read", "write"]


def now() -> str:
    """Times as the Hub writes them."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


@dataclass(frozen=True)
class Account:
    """A user with one token. A user with two tokens is two records of the same name.

    Attributes:
        name: also the namespace of the user's own repositories.
        token: what the client sends.
        role: what the token may do.
        organizations: name -> what this user may do there.
    """

    name: str
    token: str
    role: Role = "write"
    organizations: Mapping[str, Role] = field(default_factory=dict)

    def may_read(self, namespace: str) -> bool:
        """Whether private repositories of a namespace can be seen."""
        return namespace == self.name or namespace in self.organizations

    def may_write(self, namespace: str) -> bool:
        """Whether both the user and the token may write there."""
        own = namespace == self.name or self.organizations.get(namespace) == "write"
        return own and self.role == "write"


@dataclass(frozen=True)
class File:
    """One file of a commit.

    Attributes:
        size: bytes of the content.
        oid: git's SHA-1: of the content, or of the pointer for a large file.
        sha256: of the content of a large file (stored through LFS or Xet); else None.
        xet: the Xet hash of a file that is stored there; else None.
    """

    size: int
    oid: str
    sha256: str | None = None
    xet: str | None = None

    @classmethod
    def small(cls, content: bytes) -> File:
        return cls(len(content), git_sha1(content))

    @classmethod
    def large(cls, size: int, sha256: str, xet: str | None = None) -> File:
        return cls(size, git_sha1(pointer(sha256, size)), sha256, xet)


@dataclass(frozen=True)
class Commit:
    """A tree with its history."""

    oid: str
    files: Mapping[str, File]
    parent: str | None
    title: str
    author: str
    date: str


@dataclass
class PullRequest:
    """A proposed change; its commits are on ``refs/pr/N``."""

    number: int
    title: str
    author: str
    status: str = "open"
    created: str = field(default_factory=now)


@dataclass
class Repository:
    """A repository; ``refs`` maps branches and ``refs/pr/N`` to commits, ``tags`` is apart as in git."""

    name: str
    kind: Kind
    private: bool
    author: str
    gated: bool = False
    granted: set[str] = field(default_factory=set)
    created: str = field(default_factory=now)
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pull_requests: list[PullRequest] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        return self.name.partition("/")[0]

    def resolve(self, revision: str) -> Commit | None:
        """The commit of a branch, a tag, or of (the first seven or more digits of) its own name."""
        oid = self.refs.get(revision) or self.tags.get(revision)
        if oid is None and len(revision) >= 7:
            oid = next((known for known in self.commits if known.startswith(revision)), None)
        return self.commits[oid] if oid else None

    def commit(self, files: Mapping[str, File], title: str, author: str, ref: str, parent: Commit | None) -> Commit:
        """Add a commit and move ``ref`` to it."""
        listing = [[path, file.oid] for path, file in sorted(files.items())]
        content = json.dumps([listing, parent.oid if parent else None, title, author, len(self.commits)])
        oid = hashlib.sha1(content.encode(), usedforsecurity=False).hexdigest()
        made = Commit(oid, dict(files), parent.oid if parent else None, title, author, now())
        self.commits[oid], self.refs[ref] = made, oid
        return made

    def history(self, start: Commit) -> list[Commit]:
        """``start`` and those before it, newest first."""
        found = [start]
        while found[-1].parent is not None:
            found.append(self.commits[found[-1].parent])
        return found

    def open_pull_request(self, title: str, author: str, start: Commit) -> PullRequest:
        """A pull request whose branch is at ``start``."""
        opened = PullRequest(len(self.pull_requests) + 1, title, author)
        self.pull_requests.append(opened)
        self.refs[f"refs/pr/{opened.number}"] = start.oid
        return opened


def git_sha1(content: bytes) -> str:
    """What git calls a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def pointer(sha256: str, size: int) -> bytes:
    """The text that git keeps instead of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
