"""Xet storage: chunks in xorbs, described by shards; as much of its protocol as ``hf_xet`` needs to push and to pull.

A *xorb* is a run of compressed chunks, sent once; a *shard* says of which chunks of which xorbs a file is made. Formats
and protocol: https://huggingface.co/docs/xet. Hashes are not verified: BLAKE3 is not in the standard library.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.local_hub.store import put_whole

_RECORD = 48
"""Bytes of a shard's header and of each of its records."""
_END = b"\xff" * 32
_HAS_VERIFICATION, _HAS_SHA256 = 1 << 31, 1 << 30
_CHUNK_HEADER = 8


@dataclass(frozen=True)
class Segment:
    """Chunks ``first`` to ``last`` (exclusive) of a xorb; ``size`` bytes of a file."""

    xorb: str
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Term:
    """A segment, and where its compressed chunks lie in the xorb: bytes ``start`` to ``end``, inclusive."""

    segment: Segment
    start: int
    end: int


class XetStorage:
    """Xorbs under ``root``; what shards say is kept in memory."""

    token = "xet_local"
    """Opens the storage and nothing else."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.files: dict[str, tuple[Segment, ...]] = {}
        self._by_sha256: dict[str, str] = {}

    def put_xorb(self, name: str, content: bytes) -> bool:
        """Keep a xorb; False if it was here already."""
        path = self.root / name
        known = path.is_file()
        put_whole(path, content)
        return not known

    def put_shard(self, content: bytes) -> None:
        """Learn about files. Raises: ValueError for one whose xorbs are not here."""
        for name, sha256, segments in _files_of(content):
            if missing := next((s.xorb for s in segments if not (self.root / s.xorb).is_file()), None):
                raise ValueError(f"xorb {missing} was never uploaded")
            self.files[name] = segments
            if sha256:
                self._by_sha256[sha256] = name

    def hash_of(self, sha256: str) -> str | None:
        """The Xet hash of a file that arrived completely, by the SHA-256 of its content."""
        return self._by_sha256.get(sha256)

    def reconstruct(self, name: str, start: int, end: int) -> tuple[int, list[Term]]:
        """What bytes ``start`` to ``end`` (exclusive) of a file are made of.

        Returns: how many bytes of the first term come before ``start``, and the terms (none past the end).
        """
        terms: list[Term] = []
        before = at = 0
        for segment in self.files[name]:
            if at < end and at + segment.size > start:
                if not terms:
                    before = max(0, start - at)
                terms.append(self._locate(segment))
            at += segment.size
        return before, terms

    def _locate(self, segment: Segment) -> Term:
        content, at, start = (self.root / segment.xorb).read_bytes(), 0, 0
        for number in range(segment.last):
            if number == segment.first:
                start = at
            at += _CHUNK_HEADER + int.from_bytes(content[at + 1 : at + 4], "little")
        return Term(segment, start, at - 1)


def _files_of(shard: bytes) -> Iterator[tuple[str, str | None, tuple[Segment, ...]]]:
    """(Xet hash, SHA-256 if given, segments) of the files that a shard describes.

    After the header comes for each file a record with its hash, flags and number of segments, then the segments, as
    many verification records if flagged, and a record with the SHA-256 if flagged.
    """
    at = _RECORD
    while at + _RECORD <= len(shard) and shard[at : at + 32] != _END:
        name = _hex(shard[at : at + 32])
        flags, count = struct.unpack("<II", shard[at + 32 : at + 40])
        at += _RECORD
        records = [shard[at + _RECORD * i : at + _RECORD * (i + 1)] for i in range(count)]
        at += _RECORD * count * (2 if flags & _HAS_VERIFICATION else 1)
        sha256 = None
        if flags & _HAS_SHA256:
            sha256 = _hex(shard[at : at + 32])
            at += _RECORD
        yield name, sha256, tuple(_segment(record) for record in records)


def _segment(record: bytes) -> Segment:
    _, size, first, last = struct.unpack("<4I", record[32:48])
    return Segment(_hex(record[:32]), size, first, last)


def _hex(digest: bytes) -> str:
    """Xet writes a hash as four little-endian numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))
