"""The command: shard after shard, each proved and atomic, continued where an earlier command stopped."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kdkit.core.base.atomic import new_file
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hashes import sha256_of
from kdkit.core.base.locks import file_lock
from kdkit.core.base.result import format_size
from kdkit.core.base.system_errors import system_errors
from kdkit.core.contracts import Reporter, Sample
from kdkit.core.data.remote import require_space
from kdkit.core.data.shards.manifest import LeftOut, Manifest, WrittenShard, open_manifest
from kdkit.core.data.shards.members import NoImage, members_of, picture_of
from kdkit.core.data.shards.opened import OpenedRows, open_rows
from kdkit.core.data.shards.plan import ShardReport, plan_of, report_of, skipped_kinds
from kdkit.core.data.shards.read_back import content_digest, require_equal
from kdkit.core.data.shards.replace import beside_registry, entry_of, find_replaced, replace_entry
from kdkit.core.data.shards.request import ShardRequest, find_entry
from kdkit.core.data.shards.tar import TarDraft, size_of
from kdkit.core.project.project import Project

Members = list[tuple[str, bytes]]


@dataclass(frozen=True)
class _Rows:
    """The samples of one image, ready to be written.

    Attributes:
        end: the place in the order after the last of them.
        written: each with the digest of its image.
        members: of all of them.
    """

    end: int
    written: Sequence[tuple[Sample, bytes]]
    members: Members


def write_shards(project: Project, request: ShardRequest, reporter: Reporter) -> ShardReport:
    """Write the samples of a data entry as WebDataset shards; repeated after an interruption, it continues.

    Every row of the entry is in a shard, or counted with the reason. Image files keep their bytes. The source
    ``webdataset`` reads the same samples in the same order, so that training is the same to the last bit.

    Args:
        project: the project.
        request: which entry, where to, and how.
        reporter: receives the progress.

    Raises:
        KdkitError: no such entry; rows that a shard cannot hold; a row without an image; the folder holds something
            else, or shards of other data; the disk is full; the data change meanwhile; no answer from a server.
    """
    if (done := find_replaced(project, request)) is not None:
        return done
    number = find_entry(project, request.entry)
    with system_errors(str(request.to)), _alone(project, request.to):
        opened = open_rows(project, number, request, reporter)
        made_of = opened.made_of()
        with _folder_alone(request.to):
            manifest = open_manifest(request.to, made_of, skipped_kinds(opened))
            if not manifest.complete:
                _require_room(opened, manifest, reporter)
                _Writer(project, opened, manifest, reporter).write()
                opened.require_same(made_of)
                manifest.complete = True
                manifest.save(request.to)
        if opened.partial is not None:
            opened.partial.remove()
        if request.replace:
            replace_entry(project, number, request.to)
        others = len(opened.samples) - len(opened.chosen)
        return report_of(manifest, request, entry_of(project, number, beside_registry(project, request.to)), others)


def _require_room(opened: OpenedRows, manifest: Manifest, reporter: Reporter) -> None:
    """Raises: KdkitError when the disk has no room for the rest."""
    plan = plan_of(opened, manifest)
    written = sum(shard.size for shard in manifest.shards)
    opened.request.to.mkdir(parents=True, exist_ok=True)
    parts = plan.largest_part
    if opened.partial is not None and not opened.partial.has_holes():
        parts = plan.fetched
        reporter.warn(f"this disk cannot free parts of a file: {format_size(parts)} of images stay until the end")
    require_space(opened.request.to, max(0, plan.size + parts - written))
    if manifest.shards:
        reporter.say(f"continuing after {len(manifest.shards)} shards, {manifest.end} of {plan.chosen} samples")


LOCK = ".shards.busy"
"""In the folder of the shards, while a command writes there."""


@dataclass
class _Writer:
    """Writes the rest of the shards."""

    project: Project
    opened: OpenedRows
    manifest: Manifest
    reporter: Reporter
    _left_out: deque[LeftOut] = field(default_factory=deque)
    """Rows without an image after the last shard."""

    def write(self) -> None:
        """All shards that are missing."""
        request = self.opened.request
        waiting = self._rows()
        rows = next(waiting, None)
        while rows is not None:
            name = f"shard-{len(self.manifest.shards):06d}.tar"
            with new_file(request.to / name) as draft:
                rows, written, end = self._fill(draft, rows, waiting)
                require_equal(self.project.catalogue, draft, written)
                shard = WrittenShard(name, len(written), end, draft.stat().st_size, sha256_of(draft))
            while self._left_out and self._left_out[0].place < end:
                self.manifest.left_out.append(self._left_out.popleft())
            self.manifest.shards.append(shard)
            self.manifest.save(request.to)
        self.manifest.left_out += self._left_out
        if not self.manifest.shards:
            why = self._left_out[0].why if self._left_out else ""
            raise KdkitError("KD-SRC-512", "no sample of this entry has an image", where=self.opened.entry.path,
                             why=why, fix="'kdkit data check' names the images that cannot be read")  # fmt: skip

    def _fill(
        self, draft: Path, rows: _Rows, waiting: Iterator[_Rows]
    ) -> tuple[_Rows | None, list[tuple[Sample, bytes]], int]:
        """Write one shard: what comes after it, its samples with the digests of images, and where it ends."""
        request, written = self.opened.request, list[tuple[Sample, bytes]]()
        tar, upcoming, end = TarDraft(draft), rows, rows.end
        try:
            while True:
                tar.add(upcoming.members)
                written += upcoming.written
                end = upcoming.end
                after = next(waiting, None)
                if after is None:
                    break
                upcoming = after
                full = len(written) + len(upcoming.written) > request.rows_per_shard
                if full or tar.size + size_of(upcoming.members) > request.shard_mb * 1_000_000:
                    break
            tar.close()
        except BaseException:
            tar.abandon()
            raise
        return after, written, end

    def _rows(self) -> Iterator[_Rows]:
        """The rows from the end of the last shard on, an image at a time; those without an image are noted."""
        total = len(self.opened.chosen)
        skips = self.opened.request.skip_unreadable or self.opened.loaded.skip_unreadable
        for group in self.opened.images(self.manifest.end):
            place, first = group[0]
            try:
                picture = picture_of(first.image, first.image_options)
            except NoImage as error:
                if not skips:
                    raise _unreadable(first, str(error)) from None
                self._left_out += [LeftOut(place, sample.id, str(error)) for place, sample in group]
                continue
            image, digest = f"{place:09d}.{picture.ending}", content_digest(picture.content)
            members = list[tuple[str, bytes]]()
            for place, sample in group:
                members += members_of(sample, f"{place:09d}", None if members else picture, image)
            yield _Rows(place + 1, [(sample, digest) for _, sample in group], members)
            self.reporter.progress("writing shards", place + 1, total)


@contextmanager
def _alone(project: Project, to: Path) -> Iterator[None]:
    """One command writes into a folder, and fetches for it.

    Raises:
        KdkitError: another one does.
    """
    (project.state / "streams").mkdir(parents=True, exist_ok=True)
    with file_lock(project.state / "streams" / "shards.busy") as mine:
        if mine is False:
            raise KdkitError(
                "KD-BASE-510",
                "another command writes shards in this project",
                where=str(to),
                fix="wait for it to end, or stop it; it keeps its progress",
                code=ExitCode.FOUND,
            )
        yield


@contextmanager
def _folder_alone(to: Path) -> Iterator[None]:
    """One command writes into a folder, also of several projects.

    Raises:
        KdkitError: another one does.
    """
    if to.exists() and not to.is_dir():  # refused by its manifest
        yield
        return
    to.mkdir(parents=True, exist_ok=True)
    path = to / LOCK
    with file_lock(path) as mine:
        if mine is False:
            raise KdkitError(
                "KD-DATA-632",
                "another command writes shards into this folder",
                where=str(to),
                fix="wait for it to end, or name another folder by --to",
                code=ExitCode.FOUND,
            )
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _unreadable(sample: Sample, why: str) -> KdkitError:
    return KdkitError(
        "KD-SRC-511",
        f"the image of sample '{sample.id}' cannot be written",
        where=", ".join(dict.fromkeys(filter(None, (sample.origin, str(sample.image))))),
        why=why,
        fix="correct it; or leave such rows out and count them, by --skip-unreadable (skip_unreadable in Python)",
    )
