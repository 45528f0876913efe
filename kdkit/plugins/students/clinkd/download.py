"""Records of ``hf download ORG/NAME --local-dir DIR`` in DIR: commit and hash of each file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from kdkit.core.base.errors import KdkitError

RECORDS = ".cache/huggingface/download"
"""Below DIR: ``NAME.metadata``, a line each for commit, hash and time."""
_SHA1, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")


def downloaded_commit(folder: Path, files: Sequence[Path]) -> str:
    """The common commit of ``files`` at the top of ``folder``, after checking their hashes.

    Raises:
        KdkitError: no record of a file, records of several commits, a file that was changed.
    """
    commits = set()
    for path in files:
        commit, recorded = _record(folder, path)
        found = sha256_of(path) if _SHA256.fullmatch(recorded) else git_blob_sha1(path)
        if found != recorded:
            raise _unknown(folder, f"{path.name} was changed since: the Hub has {recorded}, here is {found}")
        commits.add(commit)
    if len(commits) != 1:
        raise _unknown(folder, f"its files are of several commits: {', '.join(sorted(commits))}")
    return commits.pop()


def sha256_of(path: Path) -> str:
    """Hex digest, cached by size and modification time."""
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, changed: int) -> str:  # noqa: ARG001  (the key of the cache)
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def git_blob_sha1(path: Path) -> str:
    """Blob id in git, the Hub's hash of small files."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _record(folder: Path, path: Path) -> tuple[str, str]:
    try:
        lines = (folder / RECORDS / f"{path.name}.metadata").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        raise _unknown(folder, f"{RECORDS} does not list {path.name}") from None
    commit, recorded = (*lines, "", "")[:2]
    if not (_SHA1.fullmatch(commit) and (_SHA1.fullmatch(recorded) or _SHA256.fullmatch(recorded))):
        raise _unknown(folder, f"{RECORDS}/{path.name}.metadata is not what 'hf download' writes")
    return commit, recorded


def _unknown(folder: Path, why: str) -> KdkitError:
    return KdkitError(
        "KD-STUD-015",
        "the commit of this base model is unknown",
        where=str(folder),
        why=why,
        fix="download it anew (hf download ORG/NAME --local-dir DIR), or leave base out of student.config",
    )
