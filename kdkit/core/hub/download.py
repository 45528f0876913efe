"""Fetch a repository into a folder, and verify every file against what the Hub says it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kdkit.core.contracts import Reporter
from kdkit.core.hub.connection import Hub, Kind

Select = Callable[[Iterable[str]], Iterable[str]]


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
    """Fetch a repository at one commit. ``into`` appears whole and verified, or not at all; run again it goes on.

    Args:
        hub: see :func:`connect`; public repositories need no token.
        repo: ``ORG/NAME``.
        kind: ``model`` or ``dataset``.
        revision: branch, tag or commit.
        into: must not exist, or be an empty folder.
        select: which of the paths to fetch; all by default.
        reporter: where progress is told.

    Raises:
        KdkitError: no such repository or revision, no network (exit 3); gated, private (exit 4); a path that leads
            outside, content that is not what the Hub says (exit 1).
    """
    raise NotImplementedError
