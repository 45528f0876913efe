"""Content digests of files, cached by path, size and time so that a data set is hashed once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import KdkitError
from kdkit.core.base.system_errors import optional_write
from kdkit.core.contracts import ImageOptions, Reporter, Sample, Silent
from kdkit.core.data.images import decode

Stamp = tuple[int, int]
"""Size in bytes and modification time in ns."""


def stamp_of(path: Path) -> Stamp:
    """The stamp of a file; raises OSError if it is missing."""
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


def file_digest(path: Path) -> int | str:
    """First 64 bits of the BLAKE2b hash of the file's bytes, or the reason why they cannot be read."""
    state = blake2b(digest_size=8)
    try:
        with open(path, "rb") as handle:
            while chunk := handle.read(1 << 20):
                state.update(chunk)
    except OSError as error:
        return error.strerror or str(error)
    return int.from_bytes(state.digest(), "big")


def pixel_digest(path: Path, options: ImageOptions) -> int | str:
    """The same hash of the decoded RGB pixels and their size, or ``kind: reason`` of an unreadable image."""
    try:
        image = decode(path, options)
    except KdkitError as error:
        return f"{error.what}: {error.why}"
    state = blake2b(repr(image.size).encode(), digest_size=8)
    state.update(image.tobytes())
    return int.from_bytes(state.digest(), "big")


def content_digest(sample: Sample, file: int, others: Sequence[int] = ()) -> int:
    """64 bits that change when an image file, its chosen frame, the text or ``extra`` (the question) changes.

    Args:
        sample: its text, extra and frame.
        file: digest of the first image file.
        others: digests of the sample's other images.
    """
    frame, extra = sample.image_options.frame, dict(sample.extra)
    if frame is not None:
        extra["frame"] = frame
    content = sample.text + json.dumps(extra, sort_keys=True, default=_to_json) if extra else sample.text
    state = blake2b(content.encode(), digest_size=8, key=file.to_bytes(8, "big"))
    for other in others:
        state.update(other.to_bytes(8, "big"))
    return int.from_bytes(state.digest(), "big")


def _to_json(value: Any) -> str:
    """A path becomes its name, so that the same data in another folder has the same digests."""
    return value.name if isinstance(value, Path) else str(value)


class DigestCache:
    """Digests of files, cached in a JSON file. A damaged cache is rebuilt.

    Args:
        path: the JSON file; written when it changes.
        digest: path -> value; called in threads.
    """

    def __init__(self, path: Path, digest: Callable[[Path], int | str]) -> None:
        self.path, self._digest = path, digest

    def get(
        self, files: Sequence[tuple[str, Stamp]], reporter: Reporter | None = None, label: str = "hashing"
    ) -> list[int | str]:
        """One value per (path, stamp), computed only for files that changed; failures are not cached."""
        reporter = reporter or Silent()
        known, failed = self._read(), dict[str, str]()
        todo = [(path, stamp) for path, stamp in dict(files).items() if known.get(path, [])[:2] != [*stamp]]
        if todo:
            with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
                values = pool.map(self._digest, [Path(path) for path, _ in todo])
                for done, ((path, stamp), value) in enumerate(zip(todo, values, strict=True), start=1):
                    if isinstance(value, str):
                        failed[path] = value
                    else:
                        known[path] = [*stamp, value]
                    if done % 100 == 0 or done == len(todo):
                        reporter.progress(label, done, len(todo))
            self._write(known)
        return [failed[path] if path in failed else known[path][2] for path, _ in files]

    def _read(self) -> dict[str, list[int]]:
        try:
            known = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
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


def pixel_digests(state: Path, options: ImageOptions) -> DigestCache:
    """The project's cache of :func:`pixel_digest` with these options; ``state`` is its folder for machine state."""
    chosen = "".join(f"-{name}-{value}" for name, value in asdict(options).items() if value is not None)
    return DigestCache(state / f"pixels{chosen}.json", partial(pixel_digest, options=options))
