"""Files behind URLs, here without their images: their samples can be listed, and images come one part at a time.

Each file is sparse: it has the size of the whole, and holes where its images are. A part is fetched into its hole when
an image in it is needed, and given back afterwards. So the disk holds the texts of a data set, and one part of images.
"""

from __future__ import annotations

import bisect
import ctypes
import io
import json
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, cast

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.result import format_size
from kdkit.core.contracts import ImageLocation, ImagePart, Reporter, Silent
from kdkit.core.data import remote
from kdkit.core.data.remote_cache import RECORD, beside
from kdkit.core.data.remote_files import (
    AT_ONCE,
    Files,
    RemoteFile,
    Unavailable,
    check_url,
    mismatch,
    open_files,
    without_query,
)

FOLDER = "streams"
AHEAD, AHEAD_BYTES = 3, 1 << 27
"""Parts that are fetched while one is read, and their bytes: no further one is begun above it."""
_KEEP_SIZE, _PUNCH = 1, 2
"""Modes of Linux's ``fallocate``."""
FindParts = Callable[[BinaryIO], Sequence[ImagePart]]
PartOf = tuple[Path, ImagePart]


@dataclass(frozen=True)
class PartialFiles:
    """The files of a URL.

    Attributes:
        url: of the data entry.
        folder: where they are here.
        storage: reads them.
        files: what the storage has, in its order.
        find_parts: names the parts of a file with images alone.
    """

    url: str
    folder: Path
    storage: Files
    files: Sequence[RemoteFile]
    find_parts: FindParts

    @property
    def location(self) -> Path:
        """What the source reads: the folder, or the file if the URL names one."""
        single = len(self.files) == 1 and without_query(self.url).endswith("/" + self.files[0].name)
        return self.folder / self.files[0].name if single else self.folder

    def locate(self, *_: object) -> Path:
        """:attr:`location`, for those who ask where the files of a data entry are."""
        return self.location

    @cached_property
    def parts(self) -> dict[Path, list[ImagePart]]:
        """File here -> its parts, ascending. Asks the storage for what is not here yet.

        Raises:
            KdkitError: a file is damaged; no answer.
        """
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = pool.map(self._parts_of, self.files)
            return {self.folder / file.name: parts for file, parts in zip(self.files, found, strict=True)}

    def fetch_texts(self, reporter: Reporter) -> None:
        """Fetch all but the images; what an earlier command has fetched stays.

        Raises:
            KdkitError: no answer; the disk is full.
        """
        record = beside(self.folder, RECORD)
        known = _stamps(record)
        for name in set(known) - {file.name for file in self.files}:
            remote.refuse_links(self.folder, self.folder / name)
            (self.folder / name).unlink(missing_ok=True)
            known.pop(name)
        todo = [file for file in self.files if not self._is_here(file, known)]
        sizes = {file.name: file.size - self._image_bytes(file) for file in todo}
        remote.require_space(self.folder, sum(sizes.values()))
        if todo:
            reporter.say(f"fetching {format_size(sum(sizes.values()))} of texts from {without_query(self.url)}")
        done = 0
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for file, _ in zip(todo, pool.map(self._fetch_texts_of, todo), strict=True):
                known[file.name] = file.stamp
                write_atomically(record, json.dumps(known).encode())
                done += sizes[file.name]
                reporter.progress("fetching", done, sum(sizes.values()))

    def _fetch_texts_of(self, file: RemoteFile) -> None:
        path = self.folder / file.name
        remote.refuse_links(self.folder, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as target:
            target.truncate(file.size)
            for start, end in _gaps(self.parts[path], file.size):
                for offset, block in self._read(file, start, end):
                    target.seek(offset)
                    target.write(block)
            target.flush()
            os.fsync(target.fileno())

    def part_of(self, image: ImageLocation) -> PartOf:
        """The part with an image.

        Raises:
            KdkitError: none has it.
        """
        match image.at:
            case (str(column), int(row)):
                parts = self._by_column[image.file].get(column, [])
                place = bisect.bisect_right(parts, row, key=lambda part: part.first) - 1
                if place >= 0 and row < parts[place].stop:
                    return image.file, parts[place]
        raise KdkitError("KD-PLUG-510", "no part of this file has the image", where=str(image),
                         fix="report this to the authors of the source", code=ExitCode.PLUGIN)  # fmt: skip

    @cached_property
    def _by_column(self) -> dict[Path, dict[str, list[ImagePart]]]:
        found: dict[Path, dict[str, list[ImagePart]]] = {}
        for path, parts in self.parts.items():
            columns = found.setdefault(path, {})
            for part in sorted(parts, key=lambda part: part.first):
                columns.setdefault(part.column, []).append(part)
        return found

    def load(self, parts: Iterable[PartOf]) -> Generator[PartOf]:
        """Each part is on the disk while the loop is at it; the next ones are fetched into memory meanwhile.

        Raises:
            KdkitError: no answer; the disk is full; the file changed.
        """
        by_path = {self.folder / file.name: file for file in self.files}

        def fetch(which: PartOf) -> bytes:
            path, part = which
            return b"".join(block for _, block in self._read(by_path[path], part.start, part.end))

        with ThreadPoolExecutor(AHEAD) as pool:
            waiting, todo = deque[tuple[PartOf, Future[bytes]]](), iter(parts)
            while True:
                while len(waiting) <= AHEAD and sum(_size(part) for part, _ in waiting) <= AHEAD_BYTES:
                    if (one := next(todo, None)) is None:
                        break
                    waiting.append((one, pool.submit(fetch, one)))
                if not waiting:
                    return
                now, content = waiting.popleft()
                _put(now[0], now[1].start, content.result())
                del content
                yield now
                _give_back(*now)

    def require_same(self) -> None:
        """Raises: KdkitError when the storage has other files than at the beginning, or does not answer."""
        now = _find(self.storage, self.url, os.path.splitext(self.files[0].name)[1], Silent())
        stamps = [{file.name: file.stamp for file in files} for files in (self.files, now)]
        if stamps[0] != stamps[1]:
            changed = next(name for name in {**stamps[0], **stamps[1]} if stamps[0].get(name) != stamps[1].get(name))
            raise mismatch(next(file for file in (*self.files, *now) if file.name == changed))

    def remove(self) -> None:
        """Remove all that is here."""
        beside(self.folder, RECORD).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def has_holes(self) -> bool:
        """Whether parts can be given back on this disk."""
        probe = beside(self.folder, ".probe")
        probe.write_bytes(bytes(1 << 16))
        try:
            with open(probe, "r+b") as file:
                return _punch(file.fileno(), 0, 1 << 16)
        finally:
            probe.unlink()

    def _image_bytes(self, file: RemoteFile) -> int:
        return sum(part.end - part.start for part in self.parts[self.folder / file.name])

    def _is_here(self, file: RemoteFile, known: Mapping[str, str]) -> bool:
        """Whether all but the images of a file is here."""
        path = self.folder / file.name
        return known.get(file.name) == file.stamp and path.is_file() and path.stat().st_size == file.size

    def _parts_of(self, file: RemoteFile) -> list[ImagePart]:
        path = self.folder / file.name
        if self._is_here(file, _stamps(beside(self.folder, RECORD))):
            with open(path, "rb") as here:
                return list(self.find_parts(here))
        return list(self.find_parts(cast(BinaryIO, io.BufferedReader(_Remote(self, file), 1 << 16))))

    def _read(self, file: RemoteFile, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """As :meth:`Files.read`, after the last of :data:`remote.WAITS`; continues where the connection broke."""
        waits, place = list(remote.WAITS), start
        while place < end:
            try:
                for offset, block in self.storage.read(file, place, end):
                    if offset != place:
                        raise _no_parts(file)
                    waits = list(remote.WAITS)
                    yield offset, block
                    place += len(block)
                if place < end:
                    raise Unavailable("the connection ended early")
            except Unavailable as error:
                if not waits:
                    raise remote.no_answer(file.url, str(error)) from None
                time.sleep(waits.pop(0))


class _Remote(io.RawIOBase):
    """A file behind a URL, for what reads a little of it."""

    def __init__(self, owner: PartialFiles, file: RemoteFile) -> None:
        self._owner, self._file, self._place = owner, file, 0
        self.name = without_query(file.url)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._file.size}[whence]
        return self._place

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        end = min(self._place + len(buffer), self._file.size)
        content = b"".join(block for _, block in self._owner._read(self._file, self._place, end))
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)


def open_partial(state: Path, url: str, ending: str, find_parts: FindParts, reporter: Reporter) -> PartialFiles:
    """The files behind a URL; none is fetched yet.

    Args:
        state: the project's folder for machine state.
        url: as of a data entry.
        ending: of the files in a folder.
        find_parts: of :attr:`SourceSpec.image_parts`.
        reporter: receives what is waited for.

    Raises:
        KdkitError: as :func:`remote.fetch_data`.
    """
    check_url(url)
    storage, folder = open_files(url), remote.folder_of(state, url, FOLDER)
    remote.refuse_links(folder, folder, beside(folder, RECORD))
    folder.mkdir(parents=True, exist_ok=True)
    files = _find(storage, url, ending, reporter)
    remote.require_names(files)
    return PartialFiles(url, folder, storage, files, find_parts)


def _find(storage: Files, url: str, ending: str, reporter: Reporter) -> list[RemoteFile]:
    try:
        return remote.find_patiently(storage, url, ending, reporter)
    except Unavailable as error:
        raise remote.no_answer(url, str(error)) from None


def _gaps(parts: Sequence[ImagePart], size: int) -> Iterator[tuple[int, int]]:
    """What is between the parts."""
    place = 0
    for part in parts:
        if part.start > place:
            yield place, part.start
        place = max(place, part.end)
    if place < size:
        yield place, size


def _size(which: PartOf) -> int:
    return which[1].end - which[1].start


def _put(path: Path, start: int, content: bytes) -> None:
    """Write into a file; its time stays, so that readers keep it open."""
    before = os.stat(path)
    with open(path, "r+b") as target:
        target.seek(start)
        target.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _give_back(path: Path, part: ImagePart) -> None:
    before = os.stat(path)
    with open(path, "r+b") as target:
        _punch(target.fileno(), part.start, part.end - part.start)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _punch(descriptor: int, start: int, size: int) -> bool:
    """Make a hole in a file; false where system or disk cannot."""
    if not sys.platform.startswith("linux"):
        return False
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return int(fallocate(descriptor, _KEEP_SIZE | _PUNCH, start, size)) == 0


def _stamps(record: Path) -> dict[str, str]:
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(record.read_bytes())
        return found if isinstance(found, dict) else {}
    return {}


def _no_parts(file: RemoteFile) -> KdkitError:
    return KdkitError(
        "KD-DATA-511",
        "this server sends files as a whole only",
        where=without_query(file.url),
        why="it does not answer requests for a part (Range)",
        fix="ask for these files from another server, or download them and name their path",
    )
