"""What ``kdkit data shards`` would write (``--dry-run``), and what it has written."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tarfile import RECORDSIZE
from typing import Any

from kdkit.core.base.result import Result, Section, Table, code_lines, format_size
from kdkit.core.contracts import SPLITS, Reporter
from kdkit.core.data.shards.manifest import Manifest, open_manifest
from kdkit.core.data.shards.opened import OpenedRows, open_rows
from kdkit.core.data.shards.request import ShardRequest, find_entry
from kdkit.core.project.project import Project
from kdkit.core.project.registry.render import flow

PER_ROW = 3 * 512 + 3 * 256
"""Bytes of a row's headers in a tar file, and of what fills its blocks, about."""


@dataclass(frozen=True)
class ShardPlan(Result):
    """What would be written.

    Attributes:
        source, path: of the data entry.
        to: the folder.
        rows: of the entry.
        chosen: rows that would be written.
        skipped: what the source leaves out: kind -> how many.
        splits: split -> chosen rows.
        image_bytes: of the images; about, where other files hold them.
        size: of all shards, about.
        shards: how many, about.
        fetched: bytes of images that come over the network; 0 for files that are here.
        largest_part: bytes of images on the disk at once, beside the shards; 0 for files that are here.
        done: rows of an earlier command that are in whole shards or left out.
        free: bytes on the disk of the folder.
    """

    source: str
    path: str
    to: str
    rows: int
    chosen: int
    skipped: Mapping[str, int]
    splits: Mapping[str, int]
    image_bytes: int
    size: int
    shards: int
    fetched: int
    largest_part: int
    done: int
    free: int

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    def sections(self) -> list[Section]:
        """A line per fact."""
        counts = ", ".join(f"{count} {name}" for name, count in self.splits.items())
        lines = [
            f"{self.source} {self.path}: {self.rows} samples",
            *(f"  {count} {what} skipped by the source" for what, count in self.skipped.items()),
            f"to write: {self.chosen} samples ({counts}); {self.rows - self.chosen} are of other splits",
            f"about {self.shards} shard{'s' * (self.shards > 1)}, {format_size(self.size)}, in {self.to}",
            f"{format_size(self.free)} are free there",
        ]
        if self.fetched:
            lines.append(f"over the network: {format_size(self.fetched)} of images; "
                         f"at most {format_size(self.largest_part)} of them are on the disk at once")  # fmt: skip
        if self.done:
            lines.append(f"an earlier command has done {self.done} samples; the rest will be added")
        return list(lines)


@dataclass(frozen=True)
class ShardReport(Result):
    """What was written.

    Attributes:
        to: the folder.
        rows: of the data entry.
        written: samples in shards.
        left_out: reason -> rows of the entry that are in no shard: without an image, or of other splits.
        skipped: what the source left out: kind -> how many.
        shards: (name, samples, bytes) of each.
        entry: the data entry that reads them.
        replaced: registry.yaml has this entry now.
    """

    to: str
    rows: int
    written: int
    left_out: Mapping[str, int]
    skipped: Mapping[str, int]
    shards: tuple[tuple[str, int, int], ...]
    entry: Mapping[str, Any]
    replaced: bool

    def to_json(self) -> dict[str, Any]:
        """The fields; shards as objects."""
        shards = [{"name": name, "samples": rows, "bytes": size} for name, rows, size in self.shards]
        return {**asdict(self), "shards": shards}

    def sections(self) -> list[Section]:
        """The shards, the rows that are in none, and the data entry."""
        size = sum(size for _, _, size in self.shards)
        count = f"{len(self.shards)} shard{'s' * (len(self.shards) != 1)}"
        rows: list[tuple[object, ...]] = [(name, count, format_size(size)) for name, count, size in self.shards]
        if len(rows) > 6:
            rows = [*rows[:3], ("...", "", ""), *rows[-2:]]
        parts: list[Section] = [
            Table(("shard", "samples", "size"), rows, "lrr"),
            f"{self.written} of {self.rows} samples in {count}, {format_size(size)}, in {self.to}",
            *(f"  {count} not written: {why}" for why, count in self.left_out.items()),
            *(f"  {count} {what} skipped by the source" for what, count in self.skipped.items()),
        ]
        lines = [f"{'- ' if not place else '  '}{name}: {flow(value)}"
                 for place, (name, value) in enumerate(self.entry.items())]  # fmt: skip
        title = "registry.yaml reads them now:" if self.replaced else "Data entry that reads them:"
        return [*parts, *code_lines(title, "\n".join(lines))]


def plan_shards(project: Project, request: ShardRequest, reporter: Reporter) -> ShardPlan:
    """What :func:`write_shards` would write. Of files behind a URL, the texts are fetched.

    Raises:
        KdkitError: as :func:`write_shards`, before the first shard.
    """
    opened = open_rows(project, find_entry(project, request.entry), request, reporter)
    manifest = open_manifest(request.to, opened.made_of(), skipped_kinds(opened))
    return plan_of(opened, manifest)


def plan_of(opened: OpenedRows, manifest: Manifest) -> ShardPlan:
    """The plan for rows that are opened."""
    request, samples = opened.request, opened.samples
    codes = samples.column("split").to_numpy()[opened.chosen]
    texts = samples.table.select(["text", "extra", "id"]).nbytes * len(opened.chosen) // max(1, len(samples))
    size = opened.image_bytes + texts + PER_ROW * len(opened.chosen)
    by_size, by_rows = size / (request.shard_mb * 1e6), len(opened.chosen) / request.rows_per_shard
    shards = max(1, math.ceil(max(by_size, by_rows)))
    parts = [part.end - part.start for _, part in opened.parts]
    return ShardPlan(
        source=opened.entry.source,
        path=opened.entry.path,
        to=str(request.to),
        rows=len(samples),
        chosen=len(opened.chosen),
        skipped=skipped_kinds(opened),
        splits={name: int((codes == place).sum()) for place, name in enumerate(SPLITS)},
        image_bytes=opened.image_bytes,
        size=size + shards * RECORDSIZE,
        shards=shards,
        fetched=sum(parts),
        largest_part=max(parts, default=0),
        done=len(opened.chosen) if manifest.complete else manifest.end,
        free=shutil.disk_usage(_above(request.to)).free,
    )


def report_of(manifest: Manifest, request: ShardRequest, entry: Mapping[str, Any], others: int) -> ShardReport:
    """The report of a complete manifest.

    Args:
        manifest: of the folder.
        request: of the command.
        entry: the data entry that reads the shards.
        others: rows of other splits.
    """
    left_out = dict[str, int]()
    for one in manifest.left_out:
        left_out[one.why] = left_out.get(one.why, 0) + 1
    if others:
        left_out["of other splits"] = others
    return ShardReport(
        to=str(request.to),
        rows=manifest.rows + sum(left_out.values()),
        written=manifest.rows,
        left_out=left_out,
        skipped=manifest.skipped,
        shards=tuple((shard.name, shard.rows, shard.size) for shard in manifest.shards),
        entry=entry,
        replaced=request.replace,
    )


def skipped_kinds(opened: OpenedRows) -> dict[str, int]:
    """What the source left out: kind -> how many."""
    return {kind.what: kind.count for kind in opened.loaded.skipped}


def _above(folder: Path) -> Path:
    """The folder, or the nearest one above that exists."""
    return next(one for one in (folder, *folder.absolute().parents) if one.is_dir())
