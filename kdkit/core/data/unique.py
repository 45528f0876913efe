"""Ids of samples are unique in a project. For kept listings this is checked once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pyarrow.compute as pc

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import KdkitError
from kdkit.core.base.system_errors import optional_write
from kdkit.core.data.contents import ContentsCache
from kdkit.core.data.names import count_of, name_some
from kdkit.core.data.table import SampleTable

CHECKED = "unique.json"
"""The listings whose samples have different ids."""


class MayBeKept(Protocol):
    """A data entry, of which the listing may be kept."""

    @property
    def kept(self) -> ContentsCache | None: ...


def refuse_duplicates(entries: Sequence[MayBeKept], samples: SampleTable) -> None:
    """Check the ids of the samples of all entries.

    Raises:
        KdkitError: an id occurs twice; both places are named.
    """
    listings = [entry.kept.listing for entry in entries if entry.kept]
    folder = next((entry.kept.path.parent for entry in entries if entry.kept), None)
    different = len(listings) == len(entries) == len(set(listings))  # two entries may share a listing
    if folder is not None and different and set(listings) <= _checked(folder):
        return
    ids = samples.column("id")
    if pc.count_distinct(ids).as_py() < len(ids):
        raise _repeated(samples)
    if folder is not None:
        with optional_write("the index of samples"):
            write_atomically(folder / CHECKED, json.dumps(listings).encode())


def _checked(folder: Path) -> set[str]:
    try:
        return set(json.loads((folder / CHECKED).read_bytes()))
    except (OSError, ValueError, TypeError):
        return set()


def _repeated(samples: SampleTable) -> KdkitError:
    first: dict[str, int] = {}
    rows = [(first.setdefault(name, row), row) for row, name in enumerate(samples.texts("id"))]
    pairs = [(earlier, later) for earlier, later in rows if earlier != later]
    earlier, later = samples[pairs[0][0]], samples[pairs[0][1]]
    ids = samples.texts("id")
    return KdkitError(
        "KD-DATA-009",
        f"{count_of(pairs, 'id')} used twice: {name_some(ids[row] for _, row in pairs)}",
        where=later.origin,
        why=f"'{earlier.id}' is already at {earlier.origin}; ids are the keys of cached features",
        fix="make ids unique, for example with the option id_prefix",
    )
