"""A model in a ``.zip`` behind an ``https://`` address: fetched, compared with its pin, and unpacked without trust.

The archive is kept in ``.kdkit/remote``, from where an interrupted download continues.
"""

from __future__ import annotations

import shutil
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile, ZipInfo

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hashes import sha256_of
from kdkit.core.base.result import format_size
from kdkit.core.contracts import Reporter
from kdkit.core.data.remote import fetch_data, kept_file, remote_size
from kdkit.core.teachers.source import Source

ENDING = ".zip"
LIMIT = 20 * 2**30
"""Bytes that an archive, and what it unpacks to, may have."""
RATIO, SMALL = 50, 2**28
"""Times its size that an archive may unpack to, if that is more than ``SMALL`` bytes; weights hardly shrink."""
_JUNK = "__MACOSX"
_ENCRYPTED = 0x1
_DAMAGED = (BadZipFile, NotImplementedError, EOFError, RuntimeError, ValueError, zlib.error)
"""What ``zipfile`` raises for an archive that it cannot read."""


class RemoteArchive(NamedTuple):
    """What is known of an archive that was not fetched: its bytes, and how many of them are here."""

    size: int
    kept: int


def find_archive(source: Source, state: Path, *, offline: bool, reporter: Reporter | None = None) -> RemoteArchive:
    """Size of an archive, as its server says.

    Raises:
        KdkitError: no such file, no answer, more than :data:`LIMIT`.
    """
    kept = kept_file(state, source.place, ENDING)
    if offline:
        size = _require_kept(source, kept).stat().st_size
        return RemoteArchive(size, size)
    size = remote_size(source.place, ENDING, reporter)
    _require_small(source, "the archive", size)
    return RemoteArchive(size, size if kept is not None and kept.stat().st_size == size else 0)


def fetch_archive(source: Source, state: Path, reporter: Reporter, *, offline: bool) -> tuple[Path, str]:
    """Download an archive, or continue; returns where it is, and its sha256 (hex).

    Args:
        source: of kind ``https``; its revision is the sha256 that the archive must have, if it is pinned.
        state: the project's folder for machine state.
        reporter: shows progress.
        offline: use only what was fetched before.

    Raises:
        KdkitError: as :func:`find_archive`; another sha256; offline, and it was not fetched yet.
    """
    if offline:
        path = _require_kept(source, kept_file(state, source.place, ENDING))
    else:
        find_archive(source, state, offline=False, reporter=reporter)
        path = fetch_data(state, source.place, ENDING, reporter, -(-LIMIT // 2**30))
    found = sha256_of(path)
    if source.revision is not None and found != source.revision:
        raise KdkitError(
            "KD-TEACH-303",
            "the archive is not the one that was pinned",
            where=source.place,
            why=f"the pin is sha256 {source.revision}; the archive has {found}",
            fix="find out whether its authors replaced it; 'kdkit lock NAME' accepts it where the lock holds the pin",
        )
    return path, found


class Unpacked(NamedTuple):
    """Members of an open archive by the names that they get: without the one folder that holds them all."""

    source: Source
    archive: ZipFile
    members: Mapping[str, ZipInfo]

    def extract(self, name: str, into: Path) -> None:
        """Write the member ``name`` to ``into/name``, with no rights that the archive asks for.

        Raises:
            KdkitError: another member has its place: ``a.json`` and ``./a.json``, or ``a.json`` and ``a.json/b``.
        """
        target = into / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "xb") as file, self.archive.open(self.members[name]) as member:
                shutil.copyfileobj(member, file, 1 << 20)
        except (FileExistsError, NotADirectoryError):
            raise _unsafe(self.source, f"'{name}' and another file in it have the same place") from None


@contextmanager
def unpacking(path: Path, source: Source) -> Iterator[Unpacked]:
    """Open an archive; the names of its members are not checked, their kinds and sizes are.

    Raises:
        KdkitError: damaged, encrypted, with links or equal names, or larger than :data:`LIMIT` or :data:`RATIO` allow;
            inside the block, for a member that is damaged.
    """
    try:
        with ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            members = [member for member in members if member.filename.split("/")[0] != _JUNK]
            for member in members:
                _require_plain(member, source)
            total, packed = sum(m.file_size for m in members), sum(m.compress_size for m in members)
            _require_small(source, "its content", total)
            if total > SMALL and total > RATIO * packed:
                raise _unsafe(source, f"{format_size(packed)} would unpack to {format_size(total)}")
            top = _common_folder([member.filename for member in members])
            named = {member.filename.removeprefix(top): member for member in members}
            if len(named) < len(members):
                raise _unsafe(source, "two files in it have the same name")
            yield Unpacked(source, archive, named)
    except _DAMAGED as error:
        raise KdkitError(
            "KD-TEACH-304",
            "the archive cannot be unpacked",
            where=source.place,
            why=f"{type(error).__name__}: {error}"[:200],
            fix=f"delete {path.parent} to fetch it again; if that does not help, ask its authors",
        ) from None


def _common_folder(names: list[str]) -> str:
    """``FOLDER/`` if all names begin with it; else empty."""
    tops = {name.partition("/")[0] if "/" in name else "" for name in names}
    top = next(iter(tops)) if len(tops) == 1 else ""
    return f"{top}/" if top not in ("", ".", "..") else ""


def _require_plain(member: ZipInfo, source: Source) -> None:
    mode = member.external_attr >> 16
    if member.flag_bits & _ENCRYPTED:
        raise _unsafe(source, f"'{member.filename}' in it is encrypted")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise _unsafe(source, f"'{member.filename}' in it is a link or a device")


def _require_small(source: Source, what: str, size: int) -> None:
    if size > LIMIT:
        raise KdkitError(
            "KD-TEACH-305",
            f"{what} has {format_size(size)}, more than {format_size(LIMIT)}",
            where=source.place,
            fix="download and unpack it yourself, then --from local:DIR",
        )


def _require_kept(source: Source, kept: Path | None) -> Path:
    if kept is not None:
        return kept
    raise KdkitError(
        "KD-TEACH-306",
        "the archive is not here, and --offline downloads nothing",
        where=source.place,
        fix="run the command once without --offline; or unpack it elsewhere, then --from local:DIR",
        code=ExitCode.MISSING,
    )


def _unsafe(source: Source, why: str) -> KdkitError:
    return KdkitError(
        "KD-TEACH-307",
        "this archive is not unpacked",
        where=source.place,
        why=why,
        fix="look into it; if you trust it, unpack it yourself, then --from local:DIR",
    )
