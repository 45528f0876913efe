"""Content digests of images, cached by place, size and time so that a data set is hashed once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Any

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import KdkitError
from kdkit.core.base.system_errors import optional_write
from kdkit.core.base.threads import usable_processors
from kdkit.core.contracts import FINDINGS, METADATA, ImageLocation, ImageRef, Reporter, Sample, Silent
from kdkit.core.data.locations import file_of, key_of, read_content

Stamp = tuple[int, int]
"""Size in bytes and modification time in ns."""


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


def content_digest(sample: Sample, file: int, others: Sequence[int] = ()) -> int:
    """64 bits that change when an image file, its text, ``extra`` (the question) or how it is decoded changes.

    What no model reads (``METADATA`` and ``FINDINGS`` of ``extra``) does not count.

    Args:
        sample: its text, extra, frame and scale of decoding.
        file: digest of the first image file.
        others: digests of the sample's other images.
    """
    options = sample.image_options
    extra = {key: value for key, value in sample.extra.items() if key not in (METADATA, FINDINGS)}
    if options.frame is not None:
        extra["frame"] = options.frame
    if options.jpeg_min_side is not None:
        extra["jpeg_min_side"] = options.jpeg_min_side
    content = sample.text + json.dumps(extra, sort_keys=True, default=_to_json) if extra else sample.text
    state = blake2b(content.encode(), digest_size=8, key=file.to_bytes(8, "big"))
    for other in others:
        state.update(other.to_bytes(8, "big"))
    return int.from_bytes(state.digest(), "big")


def _to_json(value: Any) -> str:
    """A path becomes its name, so that the same data in another folder has the same digests."""
    return value.name if isinstance(value, Path | ImageLocation) else str(value)


class DigestCache:
    """Digests of images, cached in a JSON file. A damaged cache is rebuilt.

    Args:
        path: the JSON file; written when it changes.
        digest: image -> value; called in threads.
    """

    def __init__(self, path: Path, digest: Callable[[ImageRef], int | str]) -> None:
        self.path, self._digest = path, digest

    def get(
        self, images: Sequence[tuple[ImageRef, Stamp]], reporter: Reporter | None = None, label: str = "hashing"
    ) -> list[int | str]:
        """One value per (image, stamp), computed only where the file changed; failures are not cached."""
        reporter = reporter or Silent()
        known, failed = self._read(), dict[str, str]()
        keys = [key_of(ref) for ref, _ in images]
        todo = {
            key: (ref, stamp)
            for key, (ref, stamp) in zip(keys, images, strict=True)
            if known.get(key, [])[:2] != [*stamp]
        }
        if todo:
            with ThreadPoolExecutor(max_workers=min(8, usable_processors())) as pool:
                values = pool.map(self._digest, [ref for ref, _ in todo.values()])
                for done, ((key, (_, stamp)), value) in enumerate(zip(todo.items(), values, strict=True), start=1):
                    if isinstance(value, str):
                        failed[key] = value
                    else:
                        known[key] = [*stamp, value]
                    if done % 100 == 0 or done == len(todo):
                        reporter.progress(label, done, len(todo))
            self._write(known)
        return [failed[key] if key in failed else known[key][2] for key in keys]

    def _read(self) -> dict[str, list[int]]:
        try:
            known = json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(known, dict) or not all(isinstance(v, list) and len(v) == 3 for v in known.values()):
            return {}
        return known

    def _write(self, known: dict[str, list[int]]) -> None:
        with optional_write("the cache of image digests"):
            write_atomically(self.path, json.dumps(known, separators=(",", ":")).encode())


def file_digests(state: Path) -> DigestCache:
    """The project's cache of :func:`file_digest`; ``state`` is its folder for machine state."""
    return DigestCache(state / "digests.json", file_digest)
