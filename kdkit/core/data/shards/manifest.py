"""``shards.json``: what a folder of shards was made of, and which rows are in it or left out.

It is written after each shard, so a command that was killed continues after the last whole one. The content has no
times: the same data and options give the same file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import ExitCode, KdkitError

NAME = "shards.json"
VERSION = 2


@dataclass(frozen=True)
class WrittenShard:
    """A whole shard.

    Attributes:
        name: of its file.
        rows: samples in it.
        end: rows of the order that it and those before it have used up.
        size, sha256: of the file.
    """

    name: str
    rows: int
    end: int
    size: int
    sha256: str


@dataclass(frozen=True)
class LeftOut:
    """A row without an image: its place in the order, its id, and why."""

    place: int
    id: str
    why: str


@dataclass
class Manifest:
    """The file of a folder.

    Attributes:
        made_of: the data entry, its files, and the options that decide the bytes; no private path, no secret.
        shards: those that are whole, in their order.
        left_out: rows up to the end of the last shard that are in none.
        skipped: what the source itself left out: kind -> how many.
        complete: every row is in a shard or left out.
    """

    made_of: Mapping[str, Any]
    shards: list[WrittenShard] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    skipped: Mapping[str, int] = field(default_factory=dict)
    complete: bool = False

    @property
    def end(self) -> int:
        """Rows of the order that are done."""
        return self.shards[-1].end if self.shards else 0

    @property
    def rows(self) -> int:
        """Samples in the shards."""
        return sum(shard.rows for shard in self.shards)

    def require(self, made_of: Mapping[str, Any], folder: Path) -> None:
        """Raises: KdkitError when the shards are of other data or options, or one is gone or changed."""
        if changes := [name for name in made_of if made_of[name] != self.made_of.get(name)]:
            raise KdkitError(
                "KD-DATA-514",
                "the shards here are of other data or options",
                where=str(folder / NAME),
                why=f"changed since they were begun: {', '.join(changes)}",
                fix="write into another folder; or delete this one to begin anew",
                code=ExitCode.FOUND,
            )
        for shard in self.shards:
            place = folder / shard.name
            if not place.is_file() or place.stat().st_size != shard.size:
                raise _refused(place, "a shard that was written is gone or changed", f"it had {shard.size} bytes")

    def save(self, folder: Path) -> None:
        """Write the file."""
        text = json.dumps({"version": VERSION, **asdict(self)}, indent=1, ensure_ascii=False)
        write_atomically(folder / NAME, text.encode())


def open_manifest(folder: Path, made_of: Mapping[str, Any], skipped: Mapping[str, int]) -> Manifest:
    """The manifest of a folder to continue, or a new one for an empty or absent folder.

    Raises:
        KdkitError: the folder holds something else, or shards of other data; a shard was changed.
    """
    kept = read_manifest(folder)
    if kept is None:
        others = [one.name for one in folder.iterdir() if not one.name.startswith(".")] if folder.is_dir() else []
        if others or (folder.exists() and not folder.is_dir()):
            raise _refused(folder, "something else is here", ", ".join(sorted(others)[:5]))
        return Manifest(made_of, skipped=skipped)
    kept.require(made_of, folder)
    kept.left_out = [one for one in kept.left_out if kept.complete or one.place < kept.end]
    return kept


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None if it has none.

    Raises:
        KdkitError: it is damaged, or of another version of kdkit.
    """
    path = folder / NAME
    try:
        found = json.loads(path.read_bytes())
        if found["version"] != VERSION:
            raise ValueError(f"it has version {found['version']}, this kdkit writes {VERSION}")
        return Manifest(
            dict(found["made_of"]),
            [WrittenShard(**one) for one in found["shards"]],
            [LeftOut(**one) for one in found["left_out"]],
            dict(found["skipped"]),
            bool(found["complete"]),
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _refused(path, "this is no manifest of shards", str(error)) from None


def _refused(where: Path, what: str, why: str) -> KdkitError:
    fix = "name another folder; or delete this one to begin anew"
    return KdkitError("KD-DATA-515", what, where=str(where), why=why, fix=fix)
