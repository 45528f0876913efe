"""Write a project as an archive: one pass over the files, constant memory."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import kdkit
from kdkit.core.base.atomic import new_file
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.system_errors import system_errors
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.sharing.bundle.contents import PARTS, Item, collect, held_by_author
from kdkit.core.sharing.bundle.manifest import LARGEST, MANIFEST, BundledFile, Manifest, parse_manifest
from kdkit.core.sharing.bundle.needs import plugin_pins

if TYPE_CHECKING:
    from kdkit.core.project.project import Project

_UNKNOWN = "0" * 64
_MB = 1_000_000


@dataclass(frozen=True)
class Packed:
    """A written bundle; ``size`` of the archive in bytes."""

    archive: Path
    manifest: Manifest
    size: int


def pack(
    project: Project,
    to: Path,
    parts: Collection[str] = PARTS,
    *,
    all_versions: bool = False,
    wheels: Path | None = None,
    reporter: Reporter | None = None,
) -> Packed:
    """Write a project as the archive ``to``; it appears whole or not at all.

    ``to`` must not exist, or be a bundle of the same files. Missing files of teachers are fetched first. For the other
    arguments see :func:`kdkit.core.sharing.bundle.contents.collect`.

    Raises:
        KdkitError: as ``collect``; ``to`` exists; too little disk space; a file that changed while it was read,
            or a teacher's that changed since it was locked.
    """
    from kdkit.core.teachers import materialize
    from kdkit.core.teachers.initial_weights import with_folders

    reporter = reporter or Silent()
    to = Path(to).absolute()
    before = _manifest_of(to) if to.exists() else None
    if not to.parent.is_dir():
        raise KdkitError(
            "KD-BUNDLE-008",
            "no such folder",
            where=str(to.parent),
            code=ExitCode.MISSING,
            fix="make it, or choose another --to",
        )
    with project.exclusive("kdkit bundle"):
        if "teachers" in parts:
            for name, locked in project.lock.teachers.items():
                missing = name in project.registry.teachers and not (project.artifacts / name).is_dir()
                if missing and not held_by_author(project, name, locked):
                    materialize(project, name, reporter=reporter)
            with_folders(project, project.registry.student.config)
        items = collect(project, parts, all_versions=all_versions, wheels=wheels, reporter=reporter)
        manifest = _manifest(items)
        require_space(to.parent, tar_size(manifest, len(manifest.to_json())))
        with system_errors(str(to)), new_file(to) as draft, open(draft, "wb") as out:
            done = _write(out, items, manifest, reporter)
            if before is not None and (before.files, before.requirements) != (done.files, done.requirements):
                raise _in_use(to)
    return Packed(to, done, to.stat().st_size)


def _manifest_of(archive: Path) -> Manifest:
    """The manifest of an earlier bundle. Raises: KdkitError for any other file."""
    with suppress(OSError, tarfile.TarError, KdkitError), tarfile.open(archive, "r:") as members:
        first = members.next()
        content = members.extractfile(first) if first is not None and first.size <= LARGEST else None
        if content is not None:
            return parse_manifest(content.read(), str(archive))
    raise _in_use(archive)


def _in_use(to: Path) -> KdkitError:
    return KdkitError(
        "KD-BUNDLE-007", "another file is already there", where=str(to), fix="choose another name", code=ExitCode.FOUND
    )


class Progress:
    """Reports every megabyte of ``total`` bytes."""

    def __init__(self, label: str, total: int, reporter: Reporter) -> None:
        self._label, self._reporter, self._total = label, reporter, -(-total // _MB)
        self._bytes, self._reported = 0, 0

    def add(self, count: int, note: str) -> None:
        """Count ``count`` more bytes of the file ``note``."""
        self._bytes += count
        if (done := -(-self._bytes // _MB)) > self._reported:
            self._reported = done
            self._reporter.progress(self._label, done, self._total, note)


def tar_entry(name: str, size: int, modified: int = 0) -> tarfile.TarInfo:
    """A plain file of an archive; ``modified`` in seconds since 1970."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, modified, 0o644
    return info


def tar_size(manifest: Manifest, length: int) -> int:
    """Bytes of the archive without its padding; ``length`` of the manifest itself."""
    sizes = [(MANIFEST, length), *((file.path, file.size) for file in manifest.files)]
    headers = sum(len(tar_entry(name, size).tobuf(tarfile.GNU_FORMAT)) for name, size in sizes)
    return headers + sum(size + -size % tarfile.BLOCKSIZE for _, size in sizes) + 2 * tarfile.BLOCKSIZE


def require_space(folder: Path, size: int) -> None:
    """Raises: KdkitError when the disk of ``folder`` has less than ``size`` bytes free."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise KdkitError(
            "KD-BUNDLE-009",
            f"{size / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free",
            where=str(folder),
            fix="free some space, or choose another disk; nothing was written",
            code=ExitCode.MISSING,
        )


def _manifest(items: Sequence[Item]) -> Manifest:
    """The manifest with placeholder hashes, validated as when it is unpacked."""
    made = Manifest.model_construct(
        format=1,
        kdkit=kdkit.__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        requirements=tuple(plugin_pins()),
        files=tuple(BundledFile.model_construct(path=i.path, size=i.size, sha256=_UNKNOWN) for i in items),
    )
    return parse_manifest(made.to_json(), "this project")


def _write(out: BinaryIO, items: Sequence[Item], manifest: Manifest, reporter: Reporter) -> Manifest:
    """Write a placeholder manifest and the files, then overwrite it with the final one of equal length."""
    modified = int(datetime.fromisoformat(manifest.created).timestamp())
    draft, files, progress = manifest.to_json(), [], Progress("bundling (MB)", manifest.total, reporter)
    if len(draft) > LARGEST:
        what = f"{len(items)} files are too many for a bundle"
        raise KdkitError("KD-BUNDLE-010", what, fix="bundle fewer parts: --with")
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tar_entry(MANIFEST, len(draft), modified), io.BytesIO(draft))
        for item in items:
            sha256 = _add(archive, item, modified, progress)
            files.append(BundledFile(path=item.path, size=item.size, sha256=_as_recorded(item, sha256)))
    final = manifest.model_copy(update={"files": tuple(files)})
    out.seek(tarfile.BLOCKSIZE)  # behind its header
    out.write(final.to_json())
    return final


class _Hashed(io.RawIOBase):
    """A stream that hashes and counts what is read."""

    def __init__(self, source: BinaryIO, item: Item, progress: Progress) -> None:
        self._source, self._item, self._progress = source, item, progress
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        chunk = self._source.read(size)
        self.digest.update(chunk)
        self._progress.add(len(chunk), self._item.path)
        return chunk


def _add(archive: tarfile.TarFile, item: Item, modified: int, progress: Progress) -> str:
    """Add a file, which must have exactly ``item.size`` bytes; returns its sha256."""
    try:
        with io.BytesIO(item.content) if isinstance(item.content, bytes) else open(item.content, "rb") as source:
            hashed = _Hashed(source, item, progress)
            size = source.seek(0, io.SEEK_END)
            source.seek(0)
            if size == item.size:
                archive.addfile(tar_entry(item.path, item.size, modified), hashed)
                size = source.seek(0, io.SEEK_END)
    except FileNotFoundError:
        fix = "run the command again"
        where = str(item.content)
        raise KdkitError("KD-BUNDLE-012", "no such file", where=where, fix=fix, code=ExitCode.MISSING) from None
    if size != item.size:
        raise KdkitError(
            "KD-BUNDLE-013", "this file changed while it was bundled", where=item.path, fix="run the command again"
        )
    return hashed.digest.hexdigest()


def _as_recorded(item: Item, found: str) -> str:
    if item.sha256 in ("", found):
        return found
    raise KdkitError(
        "KD-BUNDLE-011",
        "this file changed since its sha256 was recorded",
        where=str(item.content),
        why=f"registry.lock or the version's manifest has sha256 {item.sha256}; the file here has {found}",
        fix="a teacher's: delete its folder in .kdkit/artifacts to fetch it again; a version's: pull it again",
    )
