"""Samples of a data entry that are kept in an Arrow file, so that its source is read again only after a change."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kdkit.core.base.atomic import new_file
from kdkit.core.base.errors import KdkitError
from kdkit.core.base.system_errors import optional_write
from kdkit.core.data.arrow_files import read_table, write_table
from kdkit.core.data.stamps import Stamp, stamps_of, unchanged
from kdkit.core.data.table import SCHEMA, SampleTable

FORMAT = 1
"""Changes with the meaning of a column."""
HEAD = "kdkit"
TRIES = 3
"""How often a source is read that changes meanwhile."""
SkippedCounts = list[tuple[str, int, str, str, str]]
"""What, how many, the first, fix, level: what a source skipped."""


@dataclass(frozen=True)
class Listing:
    """What a source gave.

    Attributes:
        samples: its samples.
        skipped: what it skipped.
        id: of the file that keeps them; empty if none does.
    """

    samples: SampleTable
    skipped: SkippedCounts
    id: str = ""


@dataclass(frozen=True)
class _Head:
    """What the file says about its samples."""

    facts: Mapping[str, Any]
    since: int
    stamps: dict[str, Stamp]
    skipped: SkippedCounts
    id: str = field(default_factory=lambda: uuid4().hex)


@dataclass(frozen=True)
class Changes:
    """Samples that came, went, or have other fields."""

    new: int
    changed: int
    vanished: int

    def __str__(self) -> str:
        counts = {"new": self.new, "changed": self.changed, "vanished": self.vanished}
        return "samples since the last command: " + ", ".join(f"{count} {what}" for what, count in counts.items())


class ListingCache:
    """The file that keeps what a source gave.

    Args:
        folder: of such files.
        facts: all that decides the samples beside ``inputs``: source, version, options.
        inputs: names the files and folders that the samples depend on.
        read: reads the source.
        say: receives what changed.
    """

    def __init__(
        self,
        folder: Path,
        facts: Mapping[str, Any],
        inputs: Callable[[], Iterable[Path]],
        read: Callable[[], Listing],
        say: Callable[[str], None],
    ) -> None:
        self._facts = {"format": FORMAT, **facts}
        named = json.dumps([facts["source"], facts["location"], facts["options"]], sort_keys=True)
        self.path = folder / f"entry-{blake2b(named.encode(), digest_size=8).hexdigest()}.arrow"
        self._inputs, self._read, self._say = inputs, read, say

    def get(self) -> Listing:
        """The samples as they are now.

        Raises:
            KdkitError: of the source; it changes while it is read.
        """
        old = self._open()
        if old is not None and old[1].facts == self._facts and unchanged(old[1].stamps, old[1].since):
            return Listing(old[0], old[1].skipped, old[1].id)
        listing, head = self._read_whole()
        if old is not None:
            changes = find_changes(old[0], listing.samples)
            if changes != Changes(0, 0, 0):
                self._say(str(changes))
        with optional_write("the index of samples"), new_file(self.path) as draft:
            write_table(listing.samples.table, draft, {HEAD: json.dumps(vars(head))})
        new = self._open()
        if new is None or new[1].id != head.id:  # not written, or replaced by another command
            return listing
        return Listing(new[0], head.skipped, head.id)

    def _read_whole(self) -> tuple[Listing, _Head]:
        for _ in range(TRIES):
            since, before = time.time_ns(), stamps_of(self._inputs())
            listing = self._read()
            if stamps_of(self._inputs()) == before:
                return listing, _Head(self._facts, since, before, listing.skipped)
        raise KdkitError(
            "KD-DATA-181",
            "the data change while they are read",
            where=str(self._facts["location"]),
            why=f"they were read {TRIES} times",
            fix="run the command again when nothing writes there",
        )

    def _open(self) -> tuple[SampleTable, _Head] | None:
        """The samples and the head of the file; None if there is none, or none that this kdkit can read."""
        try:
            table = read_table(self.path)
            head = _Head(**json.loads((table.schema.metadata or {})[HEAD.encode()]))
            if head.facts.get("format") == FORMAT and table.schema.equals(SCHEMA):
                return SampleTable(table), head
            self._say("the index of samples is of another version of kdkit, and is made anew")
        except FileNotFoundError:
            pass
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
            self._say("the index of samples is damaged, and is made anew")
        return None


def find_changes(old: SampleTable, new: SampleTable) -> Changes:
    """Compare samples by their ids."""
    places = pc.index_in(new.column("id"), old.column("id"))
    common = pc.is_valid(places)
    ours, theirs = new.table.filter(common), old.table.take(pc.drop_null(places))
    differs = np.zeros(len(ours), dtype=bool)
    for name in SCHEMA.names:
        if name not in ("place", "line", "others"):  # where a row stands in its file is no change
            pair = [_as_text(table.column(name)) for table in (ours, theirs)]
            same = pc.or_(pc.fill_null(pc.equal(*pair), False), pc.and_(*map(pc.is_null, pair)))
            differs |= ~np.asarray(same.to_numpy(), dtype=bool)
    return Changes(len(new) - len(ours), int(differs.sum()), len(old) - len(ours))


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
