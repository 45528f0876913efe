"""The part of the tar format that a bundle needs: plain files, one after the other.

``tar -tf`` and every other tar program reads it. Reading is strict where the standard library is lenient: links,
devices, folders, sparse files and extended headers are refused, and no header can ask for much memory.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO

BLOCK = 512
END = bytes(2 * BLOCK)
_LONGEST_NAME = 4096
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.DIRTYPE: "a folder",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


class BadTar(ValueError):
    """What is wrong with the archive, in words for people."""


class CutOff(BadTar):
    """The archive ends too early."""


def header(name: str, size: int, modified: int) -> bytes:
    """What stands before the ``size`` bytes of a file; ``modified`` in seconds since 1970."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, modified, 0o644
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def padding(size: int) -> int:
    """Zero bytes after a file of ``size`` bytes."""
    return -size % BLOCK


def members(handle: BinaryIO) -> Iterator[tuple[str, int]]:
    """(name, size) of each file, where ``handle`` stands at its first byte; the caller may read it, or a part of it.

    Raises:
        BadTar: no tar at all, damaged, or something else than a plain file in it.
    """
    while (info := _read_header(handle)) is not None:
        start, name = handle.tell(), info.name
        if info.type == tarfile.GNUTYPE_LONGNAME:
            name = _long_name(handle, info.size)
            info = _read_header(handle)
            if info is None:
                raise BadTar("a long name without a file")
            start = handle.tell()
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise BadTar(f"{name!a} is {_KINDS.get(info.type, 'something else than a plain file')}")
        if info.size < 0:
            raise BadTar(f"{name!a} has a size of {info.size} bytes")
        yield name, info.size
        handle.seek(start + info.size + padding(info.size))


def _read_header(handle: BinaryIO) -> tarfile.TarInfo | None:
    """None at the end of the archive."""
    block = handle.read(BLOCK)
    if len(block) < BLOCK:
        raise CutOff("it ends in the middle")
    if not any(block):
        return None
    try:
        # not strict: behind a long name the header repeats its first 100 bytes, which may end within a letter
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise BadTar(f"a damaged header before byte {handle.tell()} ({error})") from error


def _long_name(handle: BinaryIO, size: int) -> str:
    if not 0 < size <= _LONGEST_NAME:
        raise BadTar(f"a name of {size} bytes")
    raw = handle.read(size + padding(size))[:size]
    try:
        return raw.rstrip(b"\0").decode()
    except UnicodeDecodeError as error:
        raise BadTar("a name that is not UTF-8") from error
