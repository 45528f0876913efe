"""From a project to an archive: one pass over the files, a few megabytes of memory."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import kdkit
from kdkit.core.base.atomic import disk_errors, new_file
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.sharing.bundle import tar
from kdkit.core.sharing.bundle.contents import PARTS, Item, collect, held_by_author
from kdkit.core.sharing.bundle.manifest import LARGEST, MANIFEST, BundledFile, Manifest, parse_manifest
from kdkit.core.sharing.bundle.meter import CHUNK, Meter
from kdkit.core.sharing.bundle.needs import plugin_pins

if TYPE_CHECKING:
    from kdkit.core.project.project import Project

_UNKNOWN = "0" * 64


@dataclass(frozen=True)
class Packed:
    """A bundle that was written; ``size`` of the archive in bytes."""

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
    """Write a project as the archive ``to``, which must not exist; it appears whole or not at all.

    Teachers whose files are not here any more are fetched first. For the other arguments see
    :func:`kdkit.core.sharing.bundle.contents.collect`.

    Raises:
        KdkitError: as ``collect``; ``to`` exists; too little disk space; a file that changed while it was read,
            or a teacher's that changed since it was locked.
    """
    reporter = reporter or Silent()
    to = Path(to).absolute()
    if to.exists():
        raise KdkitError(
            "KD-BUNDLE-007", "there is a file already", where=str(to), fix="choose another name", code=ExitCode.FOUND
        )
    if not to.parent.is_dir():
        raise KdkitError("KD-BUNDLE-008", "no such folder", where=str(to.parent), code=ExitCode.MISSING)
    with project.exclusive("kdkit bundle"):
        if "teachers" in parts:
            _fetch_missing(project, reporter)
        items = collect(project, parts, all_versions=all_versions, wheels=wheels, reporter=reporter)
        manifest = _manifest(items)
        size = tar_size(manifest, len(manifest.to_json()))
        require_space(to.parent, size)
        with disk_errors(str(to)), new_file(to) as draft, open(draft, "wb") as out:
            done = _write(out, items, manifest, reporter)
    return Packed(to, done, size)


def tar_size(manifest: Manifest, length: int) -> int:
    """Bytes of the archive, headers and padding included; ``length`` of the manifest itself."""
    sizes = [(MANIFEST, length), *((file.path, file.size) for file in manifest.files)]
    return sum(len(tar.header(name, size, 0)) + size + tar.padding(size) for name, size in sizes) + len(tar.END)


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


def _fetch_missing(project: Project, reporter: Reporter) -> None:
    from kdkit.core.teachers import materialize

    for name, locked in project.lock.teachers.items():
        if held_by_author(project, name, locked):
            continue
        if name in project.registry.teachers and not (project.artifacts / name).is_dir():
            materialize(project, name, reporter=reporter)


def _manifest(items: Sequence[Item]) -> Manifest:
    """Hashes are not known yet. What would be refused when it is unpacked is refused here."""
    made = Manifest.model_construct(
        format=1,
        kdkit=kdkit.__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        requirements=tuple(plugin_pins()),
        files=tuple(BundledFile.model_construct(path=i.path, size=i.size, sha256=_UNKNOWN) for i in items),
    )
    return parse_manifest(made.to_json(), "this project")


def _write(out: BinaryIO, items: Sequence[Item], manifest: Manifest, reporter: Reporter) -> Manifest:
    """A manifest without hashes, the files, and then the manifest again, in its place and of the same length."""
    modified = int(datetime.fromisoformat(manifest.created).timestamp())
    draft = manifest.to_json()
    if len(draft) > LARGEST:
        raise KdkitError("KD-BUNDLE-010", f"{len(items)} files are too many for a bundle")
    first = tar.header(MANIFEST, len(draft), modified)
    out.write(first + draft + bytes(tar.padding(len(draft))))
    files, meter = [], Meter("bundling (MB)", manifest.total, reporter)
    for item in items:
        out.write(tar.header(item.path, item.size, modified))
        digest = hashlib.sha256()
        for chunk in _chunks(item):
            digest.update(chunk)
            out.write(chunk)
            meter.add(len(chunk), item.path)
        out.write(bytes(tar.padding(item.size)))
        files.append(BundledFile(path=item.path, size=item.size, sha256=_as_locked(item, digest.hexdigest())))
    out.write(tar.END)
    final = manifest.model_copy(update={"files": tuple(files)})
    out.seek(len(first))
    out.write(final.to_json())
    return final


def _as_locked(item: Item, found: str) -> str:
    if item.sha256 in ("", found):
        return found
    raise KdkitError(
        "KD-BUNDLE-011",
        "this file changed since it was locked",
        where=str(item.content),
        why=f"registry.lock has sha256 {item.sha256}; the file here has {found}",
        fix="delete the teacher's folder in .kdkit/artifacts to fetch it again",
    )


def _chunks(item: Item) -> Iterator[bytes]:
    """Exactly ``item.size`` bytes."""
    left = item.size
    try:
        with io.BytesIO(item.content) if isinstance(item.content, bytes) else open(item.content, "rb") as source:
            while left and (chunk := source.read(min(CHUNK, left))):
                yield chunk
                left -= len(chunk)
            changed = left > 0 or source.read(1) != b""
    except FileNotFoundError:
        raise KdkitError("KD-BUNDLE-012", "no such file", where=str(item.content), code=ExitCode.MISSING) from None
    if changed:
        raise KdkitError(
            "KD-BUNDLE-013", "this file changed while it was bundled", where=item.path, fix="run the command again"
        )
