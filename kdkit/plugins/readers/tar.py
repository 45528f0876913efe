"""Members of tar files: ``at`` is the offset of the member's data and its size, in bytes."""

from __future__ import annotations

import os
import tarfile

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import ImageLocation

BLOCK = tarfile.BLOCKSIZE


class TarReader:
    """Opens the file for each image, as for an image file of its own: no handle stays open."""

    def content(self, location: ImageLocation) -> bytes:
        """The member's bytes, after its header was compared with what the index says.

        Raises:
            KdkitError: the file ends before the member does, or has another member there.
        """
        match location.at:
            case (int(offset), int(size)) if offset >= BLOCK and size >= 0:
                pass
            case _:
                raise _moved(location, "at is not an offset and a size")
        file = os.open(location.file, os.O_RDONLY)
        try:
            header = _read(file, BLOCK, offset - BLOCK)
            if not _is_plain_header(header, location.name, size):
                _check_header(header, location, size)
            content = _read(file, size, offset)
        finally:
            os.close(file)
        if len(content) < size:
            raise _moved(location, "the file ends within this member")
        return content


def _read(file: int, size: int, offset: int) -> bytes:
    """Up to ``size`` bytes from ``offset``: fewer only where the file ends."""
    found = os.pread(file, size, offset)
    while len(found) < size and (more := os.pread(file, size - len(found), offset + len(found))):
        found += more
    return found


def _is_plain_header(block: bytes, name: str, size: int) -> bool:
    """Whether this is the header of the member, in the usual form: a check of a microsecond."""
    return (
        block[257:262] == b"ustar"
        and block[156:157] == b"0"
        and block[:100].rstrip(b"\0") == name.encode(errors="surrogateescape")
        and block[124:135] == b"%011o" % size
    )


def _check_header(header: bytes, location: ImageLocation, size: int) -> None:
    """The whole check, for headers of any form.

    Raises:
        KdkitError: another member is there, or none.
    """
    try:
        found = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise _moved(location, str(error)) from None
    # A long name is cut in this header; the whole one is in a header before it.
    if not found.isreg() or found.size != size or not _same_name(found.name, location.name):
        raise _moved(location, f"another member is there: {found.name}, {found.size} bytes")


def _same_name(short: str, name: str) -> bool:
    return len(short) >= 99 or not short.isascii() or "?" in short or short == name


def _moved(location: ImageLocation, why: str) -> KdkitError:
    return KdkitError(
        "KD-SRC-076",
        "the tar file has no such image there",
        where=str(location),
        why=why,
        fix="restore the file; if it was written again, read the data entry again",
    )
