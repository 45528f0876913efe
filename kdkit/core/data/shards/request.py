"""What ``kdkit data shards`` is asked for, and which data entry is meant."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import SPLITS
from kdkit.core.data.remote_files import is_url, without_query
from kdkit.core.project.project import Project

READS = "webdataset"
"""The source that reads the shards."""


@dataclass(frozen=True)
class ShardRequest:
    """Options of the command.

    Attributes:
        entry: path of the data entry as in registry.yaml, or its number from 1; empty for the only one.
        to: the folder of the shards.
        splits: only samples of these; empty for all.
        rows_per_shard, shard_mb: a shard ends before it has more samples, or more megabytes; one sample always fits.
        shuffle: seed of a fixed random order; None keeps the order of the source.
        png: write images that are no image files, such as DICOM, as PNG of their pixels.
        skip_unreadable: leave out rows without an image file, and tell them, instead of stopping.
        replace: write the entry of the shards into registry.yaml, in place of the entry that was read.

    Raises:
        KdkitError: a value is wrong.
    """

    to: Path
    entry: str = ""
    splits: tuple[str, ...] = ()
    rows_per_shard: int = 10_000
    shard_mb: int = 500
    shuffle: int | None = None
    png: bool = False
    skip_unreadable: bool = False
    replace: bool = False

    def __post_init__(self) -> None:
        for name in self.splits:
            if name not in SPLITS:
                raise _wrong("--split", f"'{name}' is no split", did_you_mean(name, SPLITS) or ", ".join(SPLITS))
        if self.rows_per_shard < 1 or self.shard_mb < 1:
            raise _wrong("--rows-per-shard, --shard-mb", "a shard holds at least one", "give numbers of at least 1")
        if self.replace and (self.splits or self.shuffle is not None):
            why = "the project would lose samples" if self.splits else "another order of the samples trains otherwise"
            raise _wrong("--replace", f"not with --split or --shuffle: {why}", "write the entry into registry.yaml")

    def settings(self) -> dict[str, Any]:
        """All that decides the bytes of the shards, beside the data."""
        return {
            "splits": [name for name in SPLITS if name in self.splits or not self.splits],
            "rows_per_shard": self.rows_per_shard,
            "shard_mb": self.shard_mb,
            "shuffle": self.shuffle,
            "png": self.png,
        }


def find_entry(project: Project, named: str) -> int:
    """The number of a data entry, from 0.

    Raises:
        KdkitError: there is none of this name, or several.
    """
    paths = [entry.path for entry in project.registry.data]
    found = [number for number, path in enumerate(paths) if not named or path == named]
    if not found and named.isdecimal() and 0 < int(named) <= len(paths):
        return int(named) - 1
    if len(found) == 1:
        return found[0]
    raise KdkitError(
        "KD-DATA-512",
        f"no data entry '{named}'" if not found else "several data entries are meant",
        where=str(project.registry_path),
        why="; ".join(f"{number}: {path}" for number, path in enumerate(paths, start=1)) or "it has no data entry",
        fix="name one by its path or its number",
    )


def described(project: Project, number: int) -> dict[str, Any]:
    """The data entry ``number`` for ``shards.json``, which may be passed on with the shards.

    Paths may name patients, and options may hold secrets (``salt``; the query of a signed URL): they are in the digest
    alone.
    """
    old = project.registry.data[number]
    whole = {"source": old.source, "path": old.path, "license": old.license, "options": dict(old.options)}
    digest = _sha256(json.dumps(whole, sort_keys=True, default=str))
    return {"source": old.source, "path": named_path(old.path), "license": old.license, "digest": digest}


def named_path(path: str) -> str:
    """A path of a data entry for ``shards.json``: a URL without its query; of a file, a digest."""
    return without_query(path) if is_url(path) else f"sha256:{_sha256(path)}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _wrong(where: str, what: str, fix: str) -> KdkitError:
    return KdkitError("KD-DATA-513", what, where=where, fix=fix)
