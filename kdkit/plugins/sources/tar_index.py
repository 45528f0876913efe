"""What is in a WebDataset shard: samples by key, read once and kept beside the project.

Members whose names are equal up to the first dot of their last part belong to one sample, as in the ``webdataset``
library.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import tarfile
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.plugins.sources.records import refuse_pointer

VERSION = 3
NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.S)
"""Key and ending."""
COMPRESSED = re.compile(rb"BZh[1-9]1AY&SY|\xfd7zXZ\x00")
"""First bytes of bzip2 and xz; a file name may begin with BZ."""
IMAGES = frozenset({"png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp", "gif", "jp2", "ppm", "pgm", "pbm"})
TEXTS = frozenset({"txt", "json", "cls"})
OTHER_IMAGES = frozenset({"jfif", "jpe", "avif", "heic", "dcm", "dicom", "svs", "ndpi"})
"""Endings of images that a shard's reader does not take."""
MAX_TEXT = 2**24
"""Bytes of a text that is kept in the index."""
LINKS, KEYLESS = "links and sparse members", "members without a key"
LONG = f"texts of more than {MAX_TEXT >> 20} MiB"


@dataclass
class ShardSample:
    """Members of one key.

    Attributes:
        images: ending -> name, offset of the data and size.
        texts: ending -> content of ``.txt``, ``.json`` and ``.cls``.
        twice: an ending that occurs twice; empty if none does.
    """

    images: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    twice: str = ""


@dataclass
class Shard:
    """One tar file.

    Attributes:
        samples: key -> members, in the order of the file.
        others: kind of members that belong to no sample -> the first name, and how many.
        broken: why the file is not whole; empty if it is.
    """

    samples: dict[str, ShardSample] = field(default_factory=dict)
    others: dict[str, tuple[str, int]] = field(default_factory=dict)
    broken: str = ""

    @cached_property
    def images(self) -> dict[str, tuple[str, int, int]]:
        """Name of a member -> name, offset and size, of all images."""
        return {found[0]: found for sample in self.samples.values() for found in sample.images.values()}


def read_shard(path: Path, cache_folder: Path | None) -> Shard:
    """The content of a shard, from the cache if the file has not changed since.

    Raises:
        KdkitError: it is compressed, so that no member can be read alone, or a pointer of Git LFS.
    """
    refuse_pointer(path)
    stat = os.stat(path)
    stamp = [VERSION, stat.st_size, stat.st_mtime_ns]
    cached = None
    if cache_folder is not None:
        name = blake2b(os.fsencode(os.path.abspath(path)), digest_size=12).hexdigest()
        cached = cache_folder / f"tar-{name}.json"
        if (found := _load(cached, stamp)) is not None:
            return found
    shard = _scan(path)
    if cached is not None:
        _save(cached, stamp, shard)
    return shard


def _scan(path: Path) -> Shard:
    shard = Shard()
    with open(path, "rb") as file:
        head = file.read(10)
        if head[:2] == b"\x1f\x8b" or COMPRESSED.match(head):
            raise KdkitError(
                "KD-SRC-089",
                "this shard is compressed",
                where=str(path),
                why="its members cannot be read one by one",
                fix=f"unpack it: gunzip {path.name} (bunzip2, unxz)",
            )
        file.seek(0)
        if not head:
            shard.broken = "the file is empty"
            return shard
        last = ""
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    last = member.name
                    _add(shard, archive, member)
                end = archive.offset
            _require_end(file, end)
        except (tarfile.TarError, OSError, ValueError, RecursionError) as error:  # headers of names call one another
            shard.broken = f"{error}{f', after {last}' if last else ''}"
            if shard.samples:  # members of the last sample may be missing
                del shard.samples[next(reversed(shard.samples))]
    return shard


def _require_end(file: Any, place: int) -> None:
    """From ``place`` there are zeros alone, one block at least; tarfile takes any damaged header for the end.

    Raises:
        tarfile.ReadError: something else is there.
    """
    file.seek(place)
    if len(block := file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE or block.strip(b"\0"):
        raise tarfile.ReadError("its end is missing")
    while block := file.read(1 << 20):
        if block.strip(b"\0"):
            raise tarfile.ReadError("more follows its end ('tar -A' joins archives, 'cat' does not)")


def _add(shard: Shard, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    name = member.name.removeprefix("./")
    if member.isdir():
        return
    match = NAME.fullmatch(name)
    if not member.isreg() or member.issparse() or match is None:
        _note(shard, LINKS if match else KEYLESS, name)
        return
    key, ending = match[1], match[2].lower()
    kind = ending.rpartition(".")[2]
    if kind in IMAGES:
        sample = shard.samples.setdefault(key, ShardSample())
        sample.twice = ending if ending in sample.images else sample.twice
        sample.images[ending] = (member.name, member.offset_data, member.size)
    elif ending in TEXTS and member.size <= MAX_TEXT:
        sample = shard.samples.setdefault(key, ShardSample())
        sample.twice = ending if ending in sample.texts else sample.twice
        content = archive.extractfile(member)
        assert content is not None  # of a regular file
        text = content.read()
        if len(text) < member.size:
            raise tarfile.ReadError("unexpected end of data")
        sample.texts[ending] = text.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    elif ending in TEXTS:
        _note(shard, LONG, name)
    elif kind in OTHER_IMAGES:
        _note(shard, f"images with the ending .{kind}", name)
    else:
        _note(shard, f"members with the ending .{kind}", name)


def _note(shard: Shard, what: str, name: str) -> None:
    first, count = shard.others.get(what, (name, 0))
    shard.others[what] = (first, count + 1)


def _load(path: Path, stamp: list[int]) -> Shard | None:
    """The cached index; None if there is none, or the file has changed since."""
    try:
        found = json.loads(path.read_bytes())
        if found["stamp"] != stamp:
            return None
        samples = {
            key: ShardSample({e: (m[0], m[1], m[2]) for e, m in one["images"].items()}, one["texts"], one["twice"])
            for key, one in found["samples"].items()
        }
        return Shard(samples, {what: (first, count) for what, (first, count) in found["others"].items()})
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return None  # an index of another kdkit, or a damaged one, is made again


def _save(path: Path, stamp: list[int], shard: Shard) -> None:
    """Write the index of a whole file; on a read-only disk it is made again each time."""
    if shard.broken:
        return
    content = {"stamp": stamp, **asdict(shard)}
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as draft:
            json.dump(content, draft)
        os.replace(draft.name, path)
