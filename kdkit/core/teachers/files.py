"""Bringing files into a folder, and what they hash to."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from kdkit.core.base.errors import KdkitError
from kdkit.core.project.registry.lock import FileFact

_CHUNK = 1 << 20


def list_folder(folder: Path, where: str) -> list[str]:
    """Relative POSIX paths of all regular files under ``folder``.

    Raises:
        KdkitError: a link that leads outside (or to a folder): what it points to may change or vanish.
    """
    root = folder.resolve()
    names = []
    for path in sorted(_walk(folder)):
        if path.is_symlink() and (path.is_dir() or not path.resolve().is_relative_to(root)):
            raise KdkitError(
                "KD-TEACH-003",
                f"'{path.relative_to(folder)}' is a link that leads outside the folder",
                where=where,
                why=f"it points to {os.readlink(path)}",
                fix="put the file itself there; for a repository in the Hub's cache use hf:ORG/REPO with --offline",
            )
        if path.is_file():
            names.append(path.relative_to(folder).as_posix())
    return names


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent) / name for name in files)
        yield from (Path(parent) / name for name in folders if (Path(parent) / name).is_symlink())


def bring(name: str, source: Path, into: Path, *, link: bool) -> None:
    """Copy ``source/name`` to ``into/name`` with its times; with ``link``, a hard link where possible.

    A link is right for files that nobody changes in place: the Hub's cache.
    """
    target = into / name
    target.parent.mkdir(parents=True, exist_ok=True)
    origin = (source / name).resolve()
    if link:
        try:
            os.link(origin, target)
        except OSError:  # another file system, or one without links
            pass
        else:
            return
    shutil.copy2(origin, target)


def sha256_of(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
            if progress:
                progress(len(chunk))
    return digest.hexdigest()


def describe_files(folder: Path) -> dict[str, FileFact]:
    """Size and hash of every file under ``folder``."""
    return {
        name: FileFact(size=(folder / name).stat().st_size, sha256=sha256_of(folder / name))
        for name in list_folder(folder, str(folder))
    }


def first_difference(folder: Path, expected: Mapping[str, FileFact]) -> tuple[str, str, str] | None:
    """(file, sha256 expected, sha256 found) of the first file that differs; ``missing``/``none`` where absent."""
    present = set(list_folder(folder, str(folder)))
    for name in sorted(present | set(expected)):
        if name not in present:
            return name, expected[name].sha256, "missing"
        path = folder / name
        if name not in expected:
            return name, "none", sha256_of(path)
        found = sha256_of(path)
        if found != expected[name].sha256:
            return name, expected[name].sha256, found
    return None
