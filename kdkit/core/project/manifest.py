"""``manifest.json`` of a version: size and SHA-256 of every other file, checked before a file is read."""

from __future__ import annotations

from collections.abc import Mapping
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


def describe_folder(folder: Path, *, without: str = MANIFEST) -> dict[str, FileFact]:
    """Relative POSIX path -> size and hash of every file below ``folder`` except ``without``, sorted."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: FileFact(size=paths[name].stat().st_size, sha256=sha256_of(paths[name]))
        for name in sorted(paths)
        if name != without
    }


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
            KdkitError: it is missing, was changed, or is not listed.
        """
        path, expected = folder / name, self.files[name].sha256 if name in self.files else "none"
        found = "missing"
        if path.is_file():
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

    def check(self, folder: Path) -> None:
        """Check every listed file; see :meth:`checked`."""
        for name in self.files:
            self.checked(folder, name)


def write_manifest(folder: Path) -> None:
    """Write ``manifest.json`` for what ``folder`` holds now."""
    (folder / MANIFEST).write_bytes(Manifest(describe_folder(folder)).to_bytes())


@lru_cache(maxsize=4096)
def _hash(path: Path, size: int, mtime_ns: int, inode: int) -> str:  # noqa: ARG001  # the key of the cache
    return sha256_of(path)
