"""The rows of a data entry in the order in which shards hold them, and the bytes of their images.

Files behind a URL of which a source names the parts with images are never here as a whole: see
:mod:`kdkit.core.data.partial_files`. All others are read where they are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import IMAGE_CAPTIONS, SPLITS, ImageLocation, Reporter, Sample, SourceSpec
from kdkit.core.data.entries import LoadedEntry, Locate, read_entry
from kdkit.core.data.partial_files import PartialFiles, PartOf, open_partial
from kdkit.core.data.remote import location_of, require_commit
from kdkit.core.data.remote_files import is_url
from kdkit.core.data.shards.manifest import read_manifest
from kdkit.core.data.shards.members import decodes_itself
from kdkit.core.data.shards.read_back import require_unchanged
from kdkit.core.data.shards.request import ShardRequest, described
from kdkit.core.data.table import SampleTable
from kdkit.core.data.unique import refuse_duplicates
from kdkit.core.plugin_system.catalogue import resolve
from kdkit.core.project.project import Project
from kdkit.core.project.registry.load import line_of
from kdkit.core.project.registry.schema import DataEntry

ROWS = 65_536
"""Rows that are hashed at once."""
HASHED = ("id", "domain", "label", "split", "text", "group", "extra", "reader", "at", "name", "options")


@dataclass(frozen=True)
class OpenedRows:
    """The chosen rows of a data entry.

    Attributes:
        loaded: the entry.
        partial: its files behind a URL, if they come in parts.
        request: of the command.
        entry: the data entry in registry.yaml.
        described: the entry for ``shards.json``.
    """

    loaded: LoadedEntry
    partial: PartialFiles | None
    request: ShardRequest
    entry: DataEntry
    described: dict[str, Any]

    @property
    def samples(self) -> SampleTable:
        """All rows of the entry."""
        return self.loaded.samples

    @cached_property
    def chosen(self) -> NDArray[np.int64]:
        """Rows of the chosen splits, ascending."""
        wanted = [SPLITS.index(name) for name in SPLITS if name in self.request.splits or not self.request.splits]
        return np.flatnonzero(np.isin(self.samples.column("split").to_numpy(), wanted)).astype(np.int64)

    @cached_property
    def _image_of(self) -> NDArray[np.int64]:
        """(N,) equal numbers for neighbors with the same image."""
        differs = np.ones(len(self.samples), dtype=bool)
        same = np.ones(max(0, len(self.samples) - 1), dtype=bool)
        for name in ("file", "reader", "at"):
            column = self.samples.column(name).cast(pa.string())
            here, before = (pc.fill_null(part, "") for part in (column.slice(1), column.slice(0, len(column) - 1)))
            same &= np.asarray(pc.equal(here, before).to_numpy(), dtype=bool)
        differs[1:] = ~same
        return np.cumsum(differs).astype(np.int64)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """(M, 2) first and end of each image's rows in :attr:`chosen`, in the order of the shards.

        The rows of an image are together, and go into one shard. With a seed, parts of files and images in them are
        ordered by a hash, which is the same on every machine.
        """
        starts = np.flatnonzero(np.diff(self._image_of[self.chosen], prepend=0))
        found = np.stack([starts, np.append(starts[1:], len(self.chosen))], axis=1).astype(np.int64)
        if self.request.shuffle is None:
            return found
        seed, ids, rows = self.request.shuffle, self.samples.texts("id"), self.chosen[found[:, 0]].tolist()
        keys = [_place(seed, self._block(row)) + _place(seed, ids[row]) for row in rows]
        return found[sorted(range(len(rows)), key=keys.__getitem__)]

    def _block(self, row: int) -> str:
        """What is fetched at once with the image of a row."""
        found = self._part_of(row)
        return "" if found is None or self.partial is None else f"{found[0].name} {found[1].start}"

    def _part_of(self, row: int) -> PartOf | None:
        """The part with the image of a row; None for files that are here as a whole."""
        image = self.samples[row].image
        return self.partial.part_of(image) if self.partial and isinstance(image, ImageLocation) else None

    def images(self, start: int) -> Iterator[list[tuple[int, Sample]]]:
        """The samples of each image with their places in the order, from the place ``start`` on.

        While an image is given, the part of its file is here.
        """
        places = np.cumsum(self.order[:, 1] - self.order[:, 0]) - (self.order[:, 1] - self.order[:, 0])
        todo = range(int(np.searchsorted(places, start)), len(self.order))
        if self.partial is None:
            yield from (self._samples(number, int(places[number])) for number in todo)
            return
        grouped = [(part, list(group)) for part, group in groupby(todo, lambda n: self._part_of(self._first_row(n)))]
        with closing(self.partial.load(part for part, _ in grouped if part is not None)) as loaded:
            for part, numbers in grouped:
                if part is not None:
                    next(loaded)
                yield from (self._samples(number, int(places[number])) for number in numbers)

    def _first_row(self, number: int) -> int:
        return int(self.chosen[self.order[number, 0]])

    def _samples(self, number: int, place: int) -> list[tuple[int, Sample]]:
        first, end = self.order[number]
        return [(place + n, self.samples[row]) for n, row in enumerate(self.chosen[first:end].tolist())]

    @cached_property
    def image_bytes(self) -> int:
        """Bytes of the images, without a look into them: those of image files, or of the files that hold them."""
        if self.partial is not None:
            return sum(part.unpacked for _, part in self.parts)
        files = pc.unique(self.samples.column("file").take(pa.array(self.chosen))).to_pylist()
        return sum(os.stat(path).st_size for path in files if os.path.isfile(path))

    @cached_property
    def parts(self) -> Sequence[PartOf]:
        """The parts with the images of the chosen rows, each once."""
        if self.partial is None:
            return ()
        parts = (self._part_of(row) for row in self.chosen[self.order[:, 0]].tolist())
        return tuple(dict.fromkeys(part for part in parts if part is not None))

    def made_of(self) -> dict[str, Any]:
        """All that decides the bytes of the shards."""
        return {
            "data entry": self.described,
            "options": self.request.settings(),
            "samples": _digest(self.samples),
            "files": self.stamps(),
        }

    def stamps(self) -> str:
        """A digest of the versions of all files that hold images."""
        state = hashlib.sha256()
        if self.partial is not None:
            for file in self.partial.files:
                state.update(f"{file.name}\0{file.stamp}\n".encode())
            return state.hexdigest()
        for path in pc.unique(self.samples.column("file")).to_pylist():
            try:
                found = os.stat(path)
                stamp = f"{found.st_size} {found.st_mtime_ns}"
            except OSError:
                stamp = "missing"
            state.update(f"{path}\0{stamp}\n".encode(errors="surrogateescape"))
        return state.hexdigest()

    def require_same(self, made_of: dict[str, Any]) -> None:
        """Raises: KdkitError when the files changed since the beginning."""
        if self.partial is not None:
            self.partial.require_same()
        elif self.stamps() != made_of["files"]:
            raise KdkitError(
                "KD-DATA-516",
                "the data changed while shards were made of them",
                where=self.entry.path,
                why="the shards may hold images of both versions",
                fix="delete the shards, and run the command again when nothing writes there",
                code=ExitCode.FOUND,
            )


def open_rows(project: Project, number: int, request: ShardRequest, reporter: Reporter) -> OpenedRows:
    """List the rows of a data entry; of files behind a URL, all but the images is fetched.

    Raises:
        KdkitError: errors of the source; rows that a shard cannot hold.
    """
    entry, partial = project.registry.data[number], None
    spec = project.catalogue.spec(SourceSpec, entry.source)
    locate: Locate = location_of
    if is_url(entry.path) and not entry.path.startswith("file:") and spec.image_parts:
        if spec.remote_pinned:
            require_commit(entry.path)
        with _in_registry(project, number):
            partial = open_partial(project.state, entry.path, spec.remote_ending, resolve(spec.image_parts), reporter)
            partial.fetch_texts(reporter)
        locate = partial.locate
    elif not is_url(entry.path):
        _require_outside(request.to, project.root / entry.path)
    loaded = read_entry(project, number, reporter, locate)
    refuse_duplicates([loaded], loaded.samples)
    opened = OpenedRows(loaded, partial, request, entry, described(project, number))
    _require_holdable(opened)
    return opened


@contextmanager
def _in_registry(project: Project, number: int) -> Iterator[None]:
    """Put the line of the data entry before where an error is."""
    try:
        yield
    except KdkitError as error:
        where = line_of(project.registry_path, "data", number)
        raise error.at(f"{where}: {error.where}" if error.where else where) from error


def _require_holdable(opened: OpenedRows) -> None:
    """Raises: KdkitError for rows that a shard cannot hold."""
    samples, where = opened.samples, opened.entry.path
    if not len(opened.chosen):
        raise KdkitError("KD-DATA-517", "no sample is in these splits", where=where, fix="name others by --split")
    if several := len(samples) - samples.column("others").null_count:
        raise _cannot_hold(where, f"{several} samples with several images", "keep the data entry as it is")
    own = [name for name in samples.codes("reader")[1] if decodes_itself(name)]
    if own and not opened.request.png:
        raise KdkitError(
            "KD-DATA-519",
            "images of this entry are no image files",
            where=where,
            why=f"the reader {own[0]} makes their pixels, so there are no bytes to copy",
            fix="write their pixels without loss by --png; digests change, so features are extracted anew",
        )
    rows = samples.naming(IMAGE_CAPTIONS)
    if len(rows):
        keys = samples.image_keys.take(pa.array(rows))
        if pc.count_distinct(keys).as_py() < len(np.unique(opened._image_of[rows])):
            fix = "write the captions of an image one after the other, so that they get into one shard"
            raise _cannot_hold(where, "captions of one image that are apart", fix)
    require_unchanged(samples, opened.chosen)


def _require_outside(to: Path, data: Path) -> None:
    """Raises: KdkitError when the shards would become part of the data that they are made of."""
    if os.path.realpath(to) == os.path.realpath(data) and (manifest := read_manifest(to)) and manifest.complete:
        raise KdkitError(
            "KD-DATA-631",
            "the data entry reads these shards already",
            where=str(to),
            why=f"they are complete, with {manifest.rows} samples",
            fix="nothing is left to do; to write them once more, name another folder by --to",
            code=ExitCode.FOUND,
        )
    if Path(os.path.realpath(to)).is_relative_to(os.path.realpath(data)):
        fix = "name a folder outside of it by --to"
        raise KdkitError("KD-SRC-513", "shards would be written into the data themselves", where=str(to),
                         why=f"the data entry reads {data}", fix=fix)  # fmt: skip


def _cannot_hold(where: str, what: str, fix: str) -> KdkitError:
    why = "a sample of a shard has one image, and a shard all captions of its images"
    return KdkitError("KD-DATA-518", f"shards cannot hold {what}", where=where, why=why, fix=fix)


def _place(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=12).digest()


def _digest(samples: SampleTable) -> str:
    """Changes with any field of any row, and with their order."""
    state = hashlib.sha256()
    for name in HASHED:
        column = samples.column(name)
        for start in range(0, len(column), ROWS):
            texts = column.slice(start, ROWS).cast(pa.large_string()).combine_chunks()
            lengths = pc.fill_null(pc.binary_length(texts), -1).to_numpy()
            state.update(np.ascontiguousarray(lengths, dtype="<i8").tobytes())
            state.update("".join(pc.fill_null(texts, "").to_pylist()).encode())
    return state.hexdigest()
