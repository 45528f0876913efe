"""``manifest.json`` of a version: size and SHA-256 of every other file, checked before a file is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hashes import sha256_of
from kdkit.core.base.json_record import JsonRecord
from kdkit.core.project.lineage import damaged_record
from kdkit.core.project.registry.lock import FileFact, Relative

MANIFEST = "manifest.json"
STUDENT = "student"
"""The folder of the student in that of a version."""


def describe_folder(folder: Path, *, without: Collection[str] = (MANIFEST,)) -> dict[str, FileFact]:
    """Relative POSIX path -> size and hash of every file below ``folder`` except ``without``, sorted; no links."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if _is_plain(path)}
    return {
        name: FileFact(size=paths[name].stat().st_size, sha256=sha256_of(paths[name]))
        for name in sorted(paths)
        if name not in without
    }


def _is_plain(path: Path) -> bool:
    """Whether it is a file, and no link to one."""
    return path.is_file() and not path.is_symlink()


@dataclass(frozen=True)
class Manifest(JsonRecord):
    """The files of a version's folder: relative path -> size and hash.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as scratch:
        ...     folder = Path(scratch)
        ...     _ = (folder / "heads.bin").write_bytes(b"123")
        ...     write_manifest(folder)
        ...     Manifest.load(folder).checked(folder, "heads.bin").read_bytes()
        b'123'
    """

    FORMAT: ClassVar[int] = 1

    files: Mapping[Relative, FileFact]

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read ``manifest.json``.

        Raises:
            KdkitError: it is missing or damaged.
        """
        try:
            return cls.from_bytes((folder / MANIFEST).read_bytes())
        except (OSError, ValueError) as error:
            raise damaged_record(folder / MANIFEST, error) from None

    def checked(self, folder: Path, name: str) -> Path:
        """The path of an unchanged file in ``folder``.

        Raises:
            KdkitError: it is missing, a link or below one, was changed, or is not listed.
        """
        path, expected = folder / name, self.files[name].sha256 if name in self.files else "none"
        found = "missing"
        if any(part.is_symlink() for part in (path, *path.parents) if part.is_relative_to(folder) and part != folder):
            found = "a link"
        elif path.is_file():
            stat = path.stat()
            found = _hash(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)
        if found != expected:
            raise KdkitError(
                "KD-PROJ-014",
                f"'{name}' of version {folder.name} is not the file that was written",
                where=str(path),
                why=f"sha256 in {MANIFEST}: {expected}; now: {found}",
                fix="restore it from a backup or pull the version again; another version: kdkit rollback VERSION",
                code=ExitCode.FOUND,
            )
        return path

    def check(self, folder: Path, *, hidden: bool = False) -> None:
        """Check every listed file, see :meth:`checked`, and that ``student/`` holds no other file.

        Args:
            hidden: look at hidden files too, which no loader reads, but which a publisher could copy.

        Raises:
            KdkitError: a file that is missing or was changed, or one that kdkit did not write.
        """
        for name in self.files:
            self.checked(folder, name)
        for path in (folder / STUDENT).rglob("*"):
            name = path.relative_to(folder).as_posix()
            if name in self.files or (path.is_dir() and not path.is_symlink()):
                continue
            if hidden or not path.name.startswith("."):
                raise KdkitError(
                    "KD-PROJ-023",
                    f"'{name}' of version {folder.name} was not written by the student",
                    where=str(path),
                    why=f"{MANIFEST} does not list it; a version is read and published as it was written",
                    fix="move it out of the version's folder",
                    code=ExitCode.FOUND,
                )

    @property
    def student_digest(self) -> str:
        """SHA-256 over names and hashes of the student's files; results name the weights that they belong to by it."""
        own = {name: fact.sha256 for name, fact in self.files.items() if name.startswith(f"{STUDENT}/")}
        return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


def write_manifest(folder: Path) -> None:
    """Write ``manifest.json`` for what ``folder`` holds now."""
    (folder / MANIFEST).write_bytes(Manifest(describe_folder(folder)).to_bytes())


@lru_cache(maxsize=4096)
def _hash(path: Path, size: int, mtime_ns: int, inode: int) -> str:  # noqa: ARG001  # the key of the cache
    return sha256_of(path)
