"""Unpack an archive into a project folder, which appears only after every file is verified."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

from kdkit.core.base.atomic import new_folder, remove_abandoned_drafts
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hashes import sha256_of
from kdkit.core.base.system_errors import system_errors
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.project.project import REGISTRY
from kdkit.core.project.registry.load import load_registry
from kdkit.core.sharing.bundle.manifest import (
    LARGEST,
    MANIFEST,
    BundledFile,
    Manifest,
    parse_manifest,
    require_known_kinds,
)
from kdkit.core.sharing.bundle.needs import senders
from kdkit.core.sharing.bundle.packing import Progress, require_space, tar_size

CHUNK = 1 << 20
"""Bytes in memory at a time."""


def unpack(archive: Path, to: Path, *, max_size: int | None = None, reporter: Reporter | None = None) -> Manifest:
    """Unpack a bundle as the project folder ``to``, which appears whole or not at all.

    Args:
        archive: written by :func:`kdkit.core.sharing.bundle.packing.pack`.
        to: must not exist, or hold exactly these files already.
        max_size: limit in bytes on disk.
        reporter: receives progress, and warnings of files that make a teacher send images to a host.

    Raises:
        KdkitError: ``to`` exists; too little disk space; a truncated or damaged archive, one of a newer kdkit, or
            one that does not hold exactly the plain files of its manifest. Nothing is written then.
    """
    archive, to, reporter = Path(archive), Path(to).absolute(), reporter or Silent()
    with _opened(archive) as handle:
        manifest = _read_manifest(handle, archive)
        if _is_unpacked(manifest, to):
            remove_abandoned_drafts(to.parent)
            return manifest
        check_target(to, manifest, max_size)
        _warn(manifest, reporter)
        try:
            with system_errors(str(to)), new_folder(to) as draft:
                _read_files(handle, archive, manifest, draft, reporter)
                load_registry(draft / REGISTRY)
        except OSError as error:  # a disk that is breaking, or one that does not take such names
            why = error.strerror or str(error)
            raise KdkitError(
                "KD-BUNDLE-014",
                "this bundle cannot be unpacked",
                where=str(error.filename or to),
                why=why,
                fix="choose another disk or a shorter --to; nothing was unpacked",
            ) from error
    return manifest


def _is_unpacked(manifest: Manifest, to: Path) -> bool:
    if not to.is_dir() or {f.path for f in manifest.files} != {
        path.relative_to(to).as_posix() for path in to.rglob("*") if not path.is_dir()
    }:
        return False
    return all(sha256_of(to / file.path) == file.sha256 for file in manifest.files)


def check(archive: Path, *, reporter: Reporter | None = None) -> Manifest:
    """Check a bundle without writing anything. Raises: as :func:`unpack`."""
    with _opened(Path(archive)) as handle:
        manifest = _read_manifest(handle, Path(archive))
        _warn(manifest, reporter or Silent())
        _read_files(handle, Path(archive), manifest, None, reporter or Silent())
    return manifest


def check_target(to: Path, manifest: Manifest, max_size: int | None = None) -> None:
    """Raises: KdkitError when ``manifest`` cannot be unpacked to ``to``, before anything is written."""
    if to.exists():
        raise KdkitError(
            "KD-BUNDLE-015",
            "something is already there",
            where=str(to),
            why="a bundle becomes a new folder: it never changes a project",
            fix="choose another --to; docs/howto/offline.md says how a teacher comes from there into a project",
            code=ExitCode.FOUND,
        )
    if not to.parent.is_dir():
        raise KdkitError(
            "KD-BUNDLE-016",
            "no such folder",
            where=str(to.parent),
            code=ExitCode.MISSING,
            fix="make it, or choose another --to",
        )
    if max_size is not None and manifest.total > max_size:
        raise KdkitError(
            "KD-BUNDLE-017",
            f"the bundle holds {manifest.total / 1e9:.2f} GB, more than the {max_size / 1e9:.2f} GB that are allowed",
            fix="allow more with --max-size, if you trust its author",
        )
    require_space(to.parent, manifest.total)


def _warn(manifest: Manifest, reporter: Reporter) -> None:
    for path in senders(manifest):
        reporter.warn(
            f"a teacher of this bundle sends images and questions to a host: '{path}' names the host and your API key; "
            "read it before you use the project"
        )


def _opened(archive: Path) -> BinaryIO:
    try:
        return _Bounded(io.FileIO(archive))
    except OSError as error:
        raise KdkitError(
            "KD-BUNDLE-018",
            "this bundle cannot be read",
            where=str(archive),
            why=error.strerror or "",
            code=ExitCode.MISSING,
            fix="check the name and its permissions",
        ) from None


class _Bounded(io.BufferedReader):
    """Limits the size of one read, because tarfile reads names and extended headers whole."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= CHUNK:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


def _read_manifest(handle: BinaryIO, archive: Path) -> Manifest:
    """Read the first file and check the length of the archive against it."""
    with _tar_errors(archive), tarfile.open(fileobj=handle, mode="r:") as members:
        first = members.next()
        if first is None or first.name != MANIFEST or not first.isreg() or first.size > LARGEST:
            raise _not_a_bundle(archive, f"it does not begin with {MANIFEST}")
        manifest = parse_manifest(b"".join(_chunks(members, first)), str(archive))
    fix = "nothing was unpacked; ask its author for a bundle without this file"
    require_known_kinds((file.path for file in manifest.files), str(archive), fix)
    wanted, found = tar_size(manifest, first.size), archive.stat().st_size
    if found < wanted:
        raise KdkitError(
            "KD-BUNDLE-021",
            "this bundle is cut off",
            where=str(archive),
            why=f"it has {found} of {wanted} bytes",
            fix="copy it again from its beginning; nothing was unpacked",
            code=ExitCode.MISSING,
        )
    handle.seek(0)
    return manifest


def _read_files(handle: BinaryIO, archive: Path, manifest: Manifest, into: Path | None, reporter: Reporter) -> None:
    """Check every file against the manifest and write it below ``into``, if given."""
    label = "checking (MB)" if into is None else "unbundling (MB)"
    expected, progress = {file.path: file for file in manifest.files}, Progress(label, manifest.total, reporter)
    with _tar_errors(archive), tarfile.open(fileobj=handle, mode="r:") as members:
        members.next()  # the manifest
        while (member := members.next()) is not None:
            if not member.isreg() or member.issparse():
                raise _not_a_bundle(archive, f"{member.name!a} is not a plain file")
            fact = expected.pop(member.name, None)
            if fact is None:
                known = any(file.path == member.name for file in manifest.files)
                raise _not_a_bundle(archive, f"{member.name!a} is {'in it twice' if known else 'not in its manifest'}")
            tarfile.data_filter(member, str(into or archive.parent))
            if member.size != fact.size:
                raise _not_a_bundle(archive, f"'{fact.path}' has {member.size} bytes; its manifest says {fact.size}")
            _read_file(_chunks(members, member), archive, fact, into, progress)
    if expected:
        raise _not_a_bundle(archive, f"{len(expected)} files of its manifest are missing: '{next(iter(expected))}'")


def _chunks(members: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    source = members.extractfile(member)
    left = member.size
    while source is not None and left:
        chunk = source.read(min(CHUNK, left))
        if not chunk:
            raise tarfile.ReadError(f"it ends within {member.name!a}")
        left -= len(chunk)
        yield chunk


def _read_file(
    chunks: Iterable[bytes], archive: Path, fact: BundledFile, into: Path | None, progress: Progress
) -> None:
    digest = hashlib.sha256()
    if into is not None:
        (into / fact.path).parent.mkdir(parents=True, exist_ok=True)
    with nullcontext() if into is None else open(into / fact.path, "xb") as out:
        for chunk in chunks:
            digest.update(chunk)
            if out:
                out.write(chunk)
            progress.add(len(chunk), fact.path)
    if digest.hexdigest() != fact.sha256:
        raise KdkitError(
            "KD-BUNDLE-019",
            f"'{fact.path}' is damaged, or was changed",
            where=str(archive),
            why=f"its manifest has sha256 {fact.sha256}; the bytes have {digest.hexdigest()}",
            fix="copy the bundle again; nothing was unpacked",
        )


@contextmanager
def _tar_errors(archive: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:  # damaged numbers raise Python's own
        why = "".join(char if char.isprintable() else "?" for char in str(error))
        raise _not_a_bundle(archive, why) from error


def _not_a_bundle(archive: Path, why: str) -> KdkitError:
    return KdkitError(
        "KD-BUNDLE-020", "not a bundle that kdkit unpacks", where=str(archive), why=why, fix="nothing was unpacked"
    )
