"""Tar files with the same bytes for the same members: no times, no owners."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

BLOCK, RECORD = tarfile.BLOCKSIZE, tarfile.RECORDSIZE


class TarDraft:
    """A tar file that is being written.

    Attributes:
        size: bytes of its members so far, with their headers.
    """

    def __init__(self, path: Path) -> None:
        self.size = 0
        self._file = open(path, "wb")  # noqa: SIM115  # closed by close()
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def add(self, members: Sequence[tuple[str, bytes]]) -> None:
        """Append members: (name of at most 100 ASCII characters, content)."""
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            self._tar.addfile(member, io.BytesIO(content))
        self.size += size_of(members)

    def close(self) -> None:
        """Write the end."""
        self._tar.close()
        self._file.close()

    def abandon(self) -> None:
        """Close the file without an end: after an error."""
        self._file.close()


def size_of(members: Sequence[tuple[str, bytes]]) -> int:
    """Bytes of members in a tar file."""
    return sum(BLOCK + -(-len(content) // BLOCK) * BLOCK for _, content in members)
