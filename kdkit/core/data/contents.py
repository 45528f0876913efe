"""Contents of samples: which images they have, and the digests that change with them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kdkit.core.base.atomic import new_file
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.system_errors import optional_write
from kdkit.core.contracts import ImageRef, Reporter
from kdkit.core.data.arrow_files import read_table, write_table
from kdkit.core.data.digests import DigestCache, Stamped, content_digest
from kdkit.core.data.locations import file_of, images_of, key_of
from kdkit.core.data.names import count_of, name_some, near_miss
from kdkit.core.data.table import SampleTable, extra_of, join_tables, options_of

Rows = NDArray[np.int64]
Digests = NDArray[np.uint64]
CONTENTS = pa.schema({"image": pa.uint64(), "others": pa.large_list(pa.uint64()), "sample": pa.uint64()})
"""Columns of kept digests."""
AT_ONCE = 16_384
"""Rows that become Python objects at once."""


class Images:
    """The M different images of N samples.

    Args:
        samples: N samples.

    Attributes:
        keys: (M,) their keys, see :func:`kdkit.core.data.locations.key_of`.
        first: (N,) position of each sample's first image among them.
        others: (K,) positions of the further images of all samples, in their order.
        counts: (N,) further images of each sample.
    """

    def __init__(self, samples: SampleTable) -> None:
        self._samples = samples
        others = samples.column("others")
        self.counts: Rows = pc.fill_null(pc.list_value_length(others), 0).to_numpy().astype(np.int64)
        flat = pc.list_flatten(others)
        keys = pa.chunked_array([*samples.image_keys.chunks, *flat.chunks], pa.string()).cast(pa.large_string())
        codes, self.keys = _encoded(keys)
        self.first, self.others = codes[: len(samples)], codes[len(samples) :]

    @cached_property
    def owners(self) -> Rows:
        """(M,) the first sample that has each image."""
        rows = np.concatenate([np.arange(len(self.first)), np.repeat(np.arange(len(self.first)), self.counts)])
        found = np.full(len(self.keys), len(self.first), dtype=np.int64)
        np.minimum.at(found, np.concatenate([self.first, self.others]), rows)
        return found

    def refs(self, places: Rows) -> list[ImageRef]:
        """The images at ``places``."""
        wanted = dict.fromkeys(self.keys.take(pa.array(places)).to_pylist())
        found: dict[str, ImageRef] = {}
        for row in np.unique(self.owners[places]).tolist():
            found |= {key_of(ref): ref for ref in images_of(self._samples[row])}
        return [found[key] for key in wanted]

    def stamped(self) -> Stamped:
        """The images with the stamps of their files.

        Raises:
            KdkitError: a file is missing.
        """
        of, paths = _encoded(pa.chunked_array([pc.replace_substring_regex(self.keys, r"(?s)\x00.*", "")]))
        stamps, missing = np.zeros((len(paths), 2), dtype=np.int64), list[int]()
        for start in range(0, len(paths), AT_ONCE):
            for number, path in enumerate(paths.slice(start, AT_ONCE).to_pylist(), start=start):
                try:
                    found = os.stat(path)
                    stamps[number] = found.st_size, found.st_mtime_ns
                except (OSError, ValueError):  # ValueError: a name that no file can have
                    missing.append(number)
        if missing:
            self._refuse(np.flatnonzero(np.isin(of, missing)))
        return Stamped(self.keys, stamps[of, 0], stamps[of, 1], self.refs)

    def _refuse(self, places: Rows) -> None:
        order = places[np.argsort(self.owners[places], kind="stable")]
        files = list(dict.fromkeys(map(file_of, self.refs(order))))
        raise KdkitError(
            "KD-DATA-004",
            f"{count_of(files, 'image file')} missing: {name_some(map(str, files))}",
            where=self._samples[int(self.owners[order[0]])].origin,
            fix=near_miss(files[0]) or "put the files there, or correct the manifest or the entry's option image_root",
            code=ExitCode.MISSING,
        )

    def digests(self, cache: DigestCache, reporter: Reporter | None, *, again: bool = False) -> NDArray[np.uint64]:
        """(M,) digest of each image.

        Args:
            cache: of digests.
            reporter: shows progress.
            again: read all files, whatever is cached.

        Raises:
            KdkitError: a file is missing or cannot be read.
        """
        found, failed = cache.look_up(self.stamped(), reporter, again=again)
        if failed:
            place = min(failed, key=lambda place: self.owners[place])
            raise KdkitError(
                "KD-DATA-005",
                f"cannot read {self.refs(np.array([place]))[0]}: {failed[place]}",
                where=self._samples[int(self.owners[place])].origin,
                fix="check the file and its permissions",
                code=ExitCode.MISSING,
            )
        return found


class HasContents(Protocol):
    """A data entry, of which the digests are wanted."""

    @property
    def samples(self) -> SampleTable: ...
    @property
    def verify(self) -> str: ...
    @property
    def kept(self) -> ContentsCache | None: ...


@dataclass(frozen=True)
class Contents:
    """Digests of N samples.

    Attributes:
        first: (N,) of their first images.
        counts: (N,) further images of each.
        others: of all further images, in the order of the samples.
        samples: (N,) of the samples.
    """

    first: Digests
    counts: Rows
    others: Digests
    samples: Digests

    def differs(self, first: Digests, others: Digests) -> Rows:
        """Ascending rows of samples with other images than these."""
        rows = np.repeat(np.arange(len(self.first)), self.counts)[others != self.others]
        return np.union1d(np.flatnonzero(first != self.first), rows).astype(np.int64)


@dataclass(frozen=True)
class ContentsCache:
    """The file that keeps the digests of a data entry.

    Attributes:
        path: of the file.
        key: what the digests belong to: the listing of the samples, and the options that decide the content.
    """

    path: Path
    key: str

    @property
    def listing(self) -> str:
        """The id of the listing."""
        return self.key.partition(" ")[0]

    def samples(self, count: int) -> Digests | None:
        """The digests of ``count`` samples; None if none are kept."""
        table = self._open(count)
        return None if table is None else table.column("sample").to_numpy()

    def load(self, count: int) -> Contents | None:
        """All that is kept for ``count`` samples; None if nothing is."""
        table = self._open(count)
        if table is None:
            return None
        first, others, samples = (table.column(name) for name in CONTENTS.names)
        counts = pc.list_value_length(others).to_numpy().astype(np.int64)
        return Contents(first.to_numpy(), counts, pc.list_flatten(others).to_numpy(), samples.to_numpy())

    def _open(self, count: int) -> pa.Table | None:
        try:
            table = read_table(self.path)
        except (OSError, pa.ArrowException):
            return None
        if (table.schema.metadata or {}).get(b"key") != self.key.encode() or len(table) != count:
            return None
        return table if table.schema.equals(CONTENTS) else None

    def save(self, contents: Contents) -> None:
        """Keep these digests."""
        offsets = np.concatenate([[0], np.cumsum(contents.counts)])
        others = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(contents.others))
        table = pa.table([pa.array(contents.first), others, pa.array(contents.samples)], schema=CONTENTS)
        with optional_write("the index of contents"), new_file(self.path) as draft:
            write_table(table, draft, {"key": self.key})


def digests_of(
    entries: Sequence[HasContents], cache: DigestCache, reporter: Reporter | None = None, *, verify: bool = True
) -> Digests:
    """Digests of the samples of all entries, in their order.

    Args:
        entries: the data entries.
        cache: digests of images.
        reporter: shows progress; receives how many images were replaced.
        verify: look for replaced images where the entry says so.

    Raises:
        KdkitError: an image file is missing or cannot be read.
    """
    found: list[Digests | None] = [entry.kept.samples(len(entry.samples)) if entry.kept else None for entry in entries]
    for again in (False, True):
        rows = [
            number
            for number, entry in enumerate(entries)
            if (found[number] is None or (verify and entry.verify != "none")) and again == (entry.verify == "hash")
        ]
        images = Images(join_tables([entries[number].samples for number in rows]))
        digests, start, place = images.digests(cache, reporter, again=again), 0, 0
        for number in rows:
            samples = entries[number].samples
            end = start + len(samples)
            counts = images.counts[start:end]
            until = place + int(counts.sum())
            firsts, others = digests[images.first[start:end]], digests[images.others[place:until]]
            found[number] = _updated(entries[number], firsts, counts, others, reporter).samples
            start, place = end, until
    return np.concatenate([np.zeros(0, np.uint64), *(one for one in found if one is not None)])


def _updated(entry: HasContents, first: Digests, counts: Rows, others: Digests, reporter: Reporter | None) -> Contents:
    """The contents of an entry with these digests of its images; kept if they changed."""
    samples, known = entry.samples, entry.kept.load(len(entry.samples)) if entry.kept else None
    if known is None:
        new = Contents(first, counts, others, content_digests(samples, first, counts, others))
    else:
        rows = known.differs(first, others)
        if not len(rows):
            return known
        if reporter:
            reporter.say(f"samples with another image than before: {len(rows)}")
        whole, mine = known.samples.copy(), np.isin(np.repeat(np.arange(len(first)), counts), rows)
        whole[rows] = content_digests(samples.take(rows), first[rows], counts[rows], others[mine])
        new = Contents(first, counts, others, whole)
    if entry.kept:
        entry.kept.save(new)
    return new


def content_digests(samples: SampleTable, firsts: Digests, counts: Rows, others: Digests) -> Digests:
    """(N,) digest of each sample; see :func:`kdkit.core.data.digests.content_digest`.

    Args:
        samples: N samples.
        firsts: (N,) digests of their first images.
        counts: (N,) further images of each.
        others: digests of all further images.
    """
    found, number, place = np.zeros(len(samples), dtype=np.uint64), 0, 0
    for start in range(0, len(samples), AT_ONCE):
        part = samples.table.slice(start, AT_ONCE)
        columns = [part.column(name).to_pylist() for name in ("text", "group", "extra", "options")]
        numbers = [values[start : start + AT_ONCE].tolist() for values in (counts, firsts)]
        for text, group, extra, options, count, first in zip(*columns, *numbers, strict=True):
            more = others[place : place + count].tolist() if count else ()
            found[number] = content_digest(text, extra_of(group, extra), options_of(options), first, more)
            number, place = number + 1, place + count
    return found


def _encoded(texts: pa.ChunkedArray) -> tuple[Rows, pa.Array]:
    """((N,) position of each text among the different ones, these)."""
    chunks = texts.dictionary_encode().chunks
    codes = [chunk.indices.to_numpy() for chunk in chunks]
    different = chunks[-1].dictionary if chunks else pa.array([], texts.type)
    return np.concatenate([np.zeros(0, np.int64), *codes]).astype(np.int64), different
