"""Xet storage: the on-disk store that ``hf_xet`` itself brings, used as the Hub's.

A token whose ``casUrl`` is ``local:///DIR`` makes the client's own code keep its chunks under that folder, so
pushes and pulls through Xet are real. It is an undocumented feature of ``hf_xet`` 1.x.
"""

from __future__ import annotations

import struct
from pathlib import Path

_ENTRY = 48
"""Bytes of every record of a shard file."""
_END = b"\xff" * 32
_HAS_VERIFICATION, _HAS_SHA256 = 1 << 31, 1 << 30


class XetStorage:
    """Chunks under ``root``; filled and read by ``hf_xet``, looked into by the Hub."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    @property
    def address(self) -> str:
        """What clients are told."""
        return f"local://{self.root}"

    def hash_of(self, sha256: str) -> str | None:
        """The Xet hash of a file that arrived completely, by the SHA-256 of its content."""
        for shard in sorted(self.root.glob("**/shards/*.mdb")):
            found = _files_of(shard.read_bytes()).get(sha256)
            if found:
                return found
        return None

    def stored(self) -> int:
        """Bytes of all chunks that arrived, as they are on disk."""
        return sum(path.stat().st_size for path in self.root.glob("**/xorbs/**/*") if path.is_file())


def _files_of(shard: bytes) -> dict[str, str]:
    """SHA-256 -> Xet hash of the files that a shard describes.

    A shard is a header, then for each file one record with its hash, flags and number of segments, then that many
    segments, as many verification records if flagged, and a record with the SHA-256 if flagged.
    """
    found, at = {}, _ENTRY
    while at + _ENTRY <= len(shard):
        name = shard[at : at + 32]
        if name == _END:
            break
        flags, segments = struct.unpack("<II", shard[at + 32 : at + 40])
        at += _ENTRY * (1 + segments + (segments if flags & _HAS_VERIFICATION else 0))
        if flags & _HAS_SHA256:
            found[_hex(shard[at : at + 32])] = _hex(name)
            found[shard[at : at + 32].hex()] = _hex(name)
            at += _ENTRY
    return found


def _hex(digest: bytes) -> str:
    """Xet writes a hash as four little-endian numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))
