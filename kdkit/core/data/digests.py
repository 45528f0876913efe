"""Content digests of images, cached by place, size and time so that a data set is hashed once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kdkit.core.base.atomic import new_file
from kdkit.core.base.errors import KdkitError
from kdkit.core.base.system_errors import optional_write
from kdkit.core.base.threads import usable_processors
from kdkit.core.contracts import (
    FINDINGS,
    IMAGE_CAPTIONS,
    METADATA,
    ImageLocation,
    ImageOptions,
    ImageRef,
    Reporter,
    Silent,
)
from kdkit.core.data.arrow_files import read_table, write_table
from kdkit.core.data.locations import file_of, key_of, read_content

Stamp = tuple[int, int]
"""Size in bytes and modification time in ns."""
CACHED = pa.schema({"key": pa.large_string(), "size": pa.int64(), "time": pa.int64(), "digest": pa.uint64()})
"""Columns of a cache of digests."""
AT_ONCE = 10_000
"""Images that wait for a thread at once."""


def stamp_of(path: ImageRef) -> Stamp:
    """The stamp of the file that is or holds an image; raises OSError if it is missing."""
    found = os.stat(file_of(path))
    return found.st_size, found.st_mtime_ns


def file_digest(path: ImageRef) -> int | str:
    """First 64 bits of the BLAKE2b hash of the image's bytes, or the reason why they cannot be read.

    An image has the same digest as a file, in a tar file and in a Parquet cell.
    """
    state = blake2b(digest_size=8)
    try:
        if isinstance(path, ImageLocation):
            state.update(read_content(path))
        else:
            with open(path, "rb") as handle:
                while chunk := handle.read(1 << 20):
                    state.update(chunk)
    except KdkitError as error:
        return f"{error.what}: {error.why}" if error.why else error.what
    except OSError as error:
        return error.strerror or str(error)
    except Exception as error:  # a reader of a damaged file raises anything
        return str(error) or type(error).__name__
    return int.from_bytes(state.digest(), "big")


_UNREAD = (METADATA, FINDINGS, IMAGE_CAPTIONS)


def content_digest(
    text: str, extra: Mapping[str, Any], options: ImageOptions, file: int, others: Sequence[int] = ()
) -> int:
    """64 bits that change when an image file, its text, ``extra`` (the question) or how it is decoded changes.

    What no model reads (``METADATA``, ``FINDINGS`` and ``IMAGE_CAPTIONS`` of ``extra``) does not count.

    Args:
        text, extra, options: of the sample.
        file: digest of the first image file.
        others: digests of the sample's other images.
    """
    extra = {key: value for key, value in extra.items() if key not in _UNREAD}
    if options.frame is not None:
        extra["frame"] = options.frame
    if options.jpeg_min_side is not None:
        extra["jpeg_min_side"] = options.jpeg_min_side
    content = text + _ENCODER.encode(extra) if extra else text
    state = blake2b(content.encode(), digest_size=8, key=file.to_bytes(8, "big"))
    for other in others:
        state.update(other.to_bytes(8, "big"))
    return int.from_bytes(state.digest(), "big")


def _to_json(value: Any) -> str:
    """A path becomes its name, so that the same data in another folder has the same digests."""
    return value.name if isinstance(value, Path | ImageLocation) else str(value)


_ENCODER = json.JSONEncoder(sort_keys=True, default=_to_json)


@dataclass(frozen=True)
class Stamped:
    """M images with the stamps of their files.

    Attributes:
        keys: (M,) texts of :func:`kdkit.core.data.locations.key_of`; each once.
        sizes, times: (M,) int64; size in bytes and modification time in ns of the file.
        refs: positions -> these images.
    """

    keys: pa.Array
    sizes: NDArray[np.int64]
    times: NDArray[np.int64]
    refs: Callable[[NDArray[np.int64]], Sequence[ImageRef]]


class DigestCache:
    """Digests of images, cached in an Arrow file. A damaged cache is rebuilt.

    Args:
        path: the file; written when it changes.
        digest: image -> value; called in threads.
    """

    def __init__(self, path: Path, digest: Callable[[ImageRef], int | str]) -> None:
        self.path, self._digest = path, digest

    def get(
        self, images: Sequence[tuple[ImageRef, Stamp]], reporter: Reporter | None = None, label: str = "hashing"
    ) -> list[int | str]:
        """One value per (image, stamp), computed only where the file changed; failures are not cached."""
        stamped = {key_of(ref): (ref, stamp) for ref, stamp in images}
        refs = [ref for ref, _ in stamped.values()]
        sizes, times = (np.array([stamp[i] for _, stamp in stamped.values()], np.int64) for i in (0, 1))
        keys = pa.array(stamped, pa.large_string())
        found = Stamped(keys, sizes, times, lambda places: [refs[place] for place in places])
        digests, failed = self.look_up(found, reporter, label)
        values = dict(zip(stamped, digests.tolist(), strict=True))
        values |= {key_of(refs[place]): reason for place, reason in failed.items()}
        return [values[key_of(ref)] for ref, _ in images]

    def look_up(
        self, images: Stamped, reporter: Reporter | None = None, label: str = "hashing", *, again: bool = False
    ) -> tuple[NDArray[np.uint64], dict[int, str]]:
        """((M,) digests, position -> why it has none); see :meth:`get`.

        Args:
            images: M images.
            reporter: shows progress.
            label: of the progress.
            again: compute all, whatever is cached.
        """
        known, digests = self._read(), np.zeros(len(images.keys), dtype=np.uint64)
        places = pc.fill_null(pc.index_in(images.keys, known.column("key")), -1).to_numpy()
        sizes, times, values = (known.column(name).to_numpy() for name in ("size", "time", "digest"))
        same = (places >= 0) & (not again)
        old = places[same]
        same[same] = (sizes[old] == images.sizes[same]) & (times[old] == images.times[same])
        digests[same] = values[places[same]]
        ready, failed = same.copy(), dict[int, str]()
        try:
            for place, value in self._computed(images, np.flatnonzero(~same), reporter or Silent(), label):
                if isinstance(value, str):
                    failed[place] = value
                else:
                    digests[place], ready[place] = value, True
        finally:  # what is computed is kept, also when the command is interrupted
            good = np.flatnonzero(ready & ~same)
            if len(good):
                keys = images.keys.take(pa.array(good))
                columns = [keys, *map(pa.array, (images.sizes[good], images.times[good], digests[good]))]
                kept = known.filter(pc.invert(pc.is_in(known.column("key"), keys)))
                self._write(pa.concat_tables([kept, pa.table(columns, schema=CACHED)]))
        return digests, failed

    def _computed(
        self, images: Stamped, todo: NDArray[np.int64], reporter: Reporter, label: str
    ) -> Iterator[tuple[int, int | str]]:
        done = 0
        with ThreadPoolExecutor(max_workers=min(8, usable_processors())) as pool:
            for start in range(0, len(todo), AT_ONCE):
                places = todo[start : start + AT_ONCE]
                for place, value in zip(places.tolist(), pool.map(self._digest, images.refs(places)), strict=True):
                    yield place, value
                    done += 1
                    if done % 100 == 0 or done == len(todo):
                        reporter.progress(label, done, len(todo))

    def _read(self) -> pa.Table:
        try:
            found = read_table(self.path)
        except (OSError, pa.ArrowException):
            return CACHED.empty_table()
        return found if found.schema.equals(CACHED) else CACHED.empty_table()

    def _write(self, known: pa.Table) -> None:
        with optional_write("the cache of image digests"), new_file(self.path) as draft:
            write_table(known, draft)


def file_digests(state: Path) -> DigestCache:
    """The project's cache of :func:`file_digest`; ``state`` is its folder for machine state."""
    return DigestCache(state / "digests.arrow", file_digest)
