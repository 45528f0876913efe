"""The two names of a file's content: SHA-256, and git's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Hashes:
    """Hex digests of a content; ``git_sha1`` is what git, and the Hub for small files, calls it."""

    sha256: str
    git_sha1: str


def hash_file(path: Path) -> Hashes:
    """Both in one pass; of a file that grows meanwhile, neither is right."""
    sha256 = hashlib.sha256()
    git_sha1 = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            sha256.update(chunk)
            git_sha1.update(chunk)
    return Hashes(sha256.hexdigest(), git_sha1.hexdigest())
