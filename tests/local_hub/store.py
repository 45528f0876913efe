"""Contents on disk: small files by git's SHA-1, large ones by SHA-256."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from tests.local_hub.state import git_sha1

_CHUNK = 1 << 20


class WrongContent(Exception):
    """What arrived does not have the hash under which it was announced."""


def put_whole(path: Path, content: bytes) -> None:
    """Write a file that is named by its content; a concurrent reader finds all of it or nothing."""
    if not path.is_file():
        descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=".")
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
        os.replace(draft, path)


class Store:
    """Contents under ``root``; writing the same content twice is harmless."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def path(self, oid: str) -> Path:
        return self.root / oid

    def has(self, oid: str) -> bool:
        return self.path(oid).is_file()

    def size(self, oid: str) -> int:
        return self.path(oid).stat().st_size

    def put_small(self, content: bytes) -> str:
        """Keep a small file; its name."""
        oid = git_sha1(content)
        put_whole(self.path(oid), content)
        return oid

    def put_large(self, sha256: str, content: BinaryIO) -> None:
        """Keep a large file. Raises: WrongContent; then nothing is kept."""
        digest = hashlib.sha256()
        descriptor, draft = tempfile.mkstemp(dir=self.root, prefix=".")
        with os.fdopen(descriptor, "wb") as handle:
            while chunk := content.read(_CHUNK):
                digest.update(chunk)
                handle.write(chunk)
        if digest.hexdigest() != sha256:
            os.unlink(draft)
            raise WrongContent(f"sha256 is {digest.hexdigest()}")
        os.replace(draft, self.path(sha256))
