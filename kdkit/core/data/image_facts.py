"""What decoding shows of each image, cached by place, size and time so that an image is decoded once."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import KdkitError
from kdkit.core.base.system_errors import optional_write
from kdkit.core.base.threads import usable_processors
from kdkit.core.contracts import ImageOptions, ImageRef, Reporter, Silent
from kdkit.core.data.digests import Stamp
from kdkit.core.data.images import inspect
from kdkit.core.data.locations import key_of

SIDE = 32
"""Pixels of the gray picture that the perceptual hash reads."""
LOW = 16
"""Frequencies of the hash in each direction."""
WORDS = LOW * LOW // 16
AT_ONCE = 1000
"""Images that wait for a thread at once; an interrupted command waits for them."""
_FIELDS: list[Any] = [
    ("digest", "<u8"),
    ("hash", "<u2", (WORDS,)),
    ("contrast", "<f4"),
    ("width", "<u4"),
    ("height", "<u4"),
    ("frames", "<u4"),
    ("kind", "S16"),
]
FACTS = np.dtype(_FIELDS)
"""Of an image: digest of its RGB pixels, perceptual hash, standard deviation of its gray values (0 to 127), size in
pixels, frames of its file, format and Pillow's mode."""
_CACHED = np.dtype([("key", "<u8"), ("size", "<i8"), ("time", "<i8"), *_FIELDS])

_U = np.arange(LOW)
_DCT = np.cos(np.pi * np.outer(_U, 2 * np.arange(SIDE) + 1) / (2 * SIDE))
"""(LOW, SIDE): the lowest rows of the discrete cosine transform (DCT-II) without its constant factors."""
ORDER = np.argsort((_U[:, None] + _U + 0.01 * _U[:, None]).ravel(), kind="stable")
"""Place of a bit in the hash -> frequency (row * LOW + column), from low to high. The first is the mean."""


def perceptual_hash(image: Image.Image) -> tuple[NDArray[np.uint16], float]:
    """256 bits that few changes of a picture change, and the standard deviation of its gray values.

    A bit is the sign of a coefficient of the picture's cosine transform, 32 x 32 gray pixels, the 255 lowest
    frequencies without the mean (as pHash; Zauner 2010). Brightness, contrast, size and compression hardly change it.
    A mirrored picture has the same coefficients, with the signs of odd frequencies reversed.

    Returns:
        (16,) uint16, low frequencies first, and a number from 0 to 127.
    """
    gray = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32)
    bits = (_DCT @ gray @ _DCT.T > 0).ravel()[ORDER]
    bits[0] = False
    return np.packbits(bits, bitorder="little").view("<u2"), float(gray.std())


def measure_image(path: ImageRef, options: ImageOptions) -> NDArray[Any] | str:
    """() record of :data:`FACTS`, or ``kind: reason`` of an unreadable image."""
    try:
        image, stored = inspect(path, options)
    except KdkitError as error:
        return f"{error.what}: {error.why}"
    state = blake2b(repr(image.size).encode(), digest_size=8)
    state.update(image.tobytes())
    bits, contrast = perceptual_hash(image)
    found = np.zeros((), dtype=FACTS)
    digest = int.from_bytes(state.digest(), "big")
    found[()] = (digest, bits, contrast, *image.size, stored.frames, stored.kind.encode("ascii", "replace"))
    return found


class ImageFacts:
    """The project's cache of :func:`measure_image`, in a file of NumPy. A damaged cache is rebuilt.

    Args:
        state: the project's folder for machine state.
        options: how images are decoded; each choice has a cache of its own.
    """

    def __init__(self, state: Path, options: ImageOptions) -> None:
        chosen = "".join(f"-{name}-{value}" for name, value in asdict(options).items() if value is not None)
        self.path, self._measure = state / f"pixels{chosen}.npy", partial(measure_image, options=options)

    def get(
        self, images: Sequence[tuple[ImageRef, Stamp]], reporter: Reporter | None = None
    ) -> tuple[NDArray[Any], dict[int, str]]:
        """((M,) records of :data:`FACTS`, position -> why the image cannot be read).

        Args:
            images: M images with the stamps of their files, each once. What did not change is not decoded again.
            reporter: shows progress.
        """
        wanted = np.zeros(len(images), dtype=_CACHED)
        for place, (ref, stamp) in enumerate(images):
            key = blake2b(key_of(ref).encode(errors="surrogateescape"), digest_size=8).digest()
            wanted[place]["key"] = int.from_bytes(key, "big")
            wanted[place]["size"], wanted[place]["time"] = stamp
        known = self._read()
        places = np.minimum(np.searchsorted(known["key"], wanted["key"]), max(len(known) - 1, 0))
        same = np.zeros(len(images), dtype=bool)
        if len(known):
            same[:] = np.logical_and.reduce([known[places][name] == wanted[name] for name in ("key", "size", "time")])
            wanted[same] = known[places[same]]
        ready, failed = same.copy(), dict[int, str]()
        try:
            for place, value in self._measured(images, np.flatnonzero(~same).tolist(), reporter or Silent()):
                if isinstance(value, str):
                    failed[place] = value
                else:
                    for name in FACTS.names or ():
                        wanted[place][name] = value[name]
                    ready[place] = True
        finally:  # what is decoded is kept, also when the command is interrupted
            if (ready & ~same).any():
                good = wanted[ready]
                self._write(np.concatenate([known[~np.isin(known["key"], good["key"])], good]))
        return wanted, failed

    def _measured(
        self, images: Sequence[tuple[ImageRef, Stamp]], todo: list[int], reporter: Reporter
    ) -> Iterator[tuple[int, NDArray[Any] | str]]:
        with ThreadPoolExecutor(max_workers=min(8, usable_processors())) as pool:
            for start in range(0, len(todo), AT_ONCE):
                places = todo[start : start + AT_ONCE]
                values = pool.map(self._measure, [images[place][0] for place in places])
                for done, (place, value) in enumerate(zip(places, values, strict=True), start=start + 1):
                    yield place, value
                    if done % 100 == 0 or done == len(todo):
                        reporter.progress("decoding", done, len(todo))

    def _read(self) -> NDArray[Any]:
        try:
            found: NDArray[Any] = np.load(self.path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return np.zeros(0, dtype=_CACHED)
        fits = isinstance(found, np.ndarray) and found.dtype == _CACHED and found.ndim == 1
        return found if fits and bool((found["key"][1:] > found["key"][:-1]).all()) else np.zeros(0, dtype=_CACHED)

    def _write(self, known: NDArray[Any]) -> None:
        stream = io.BytesIO()
        np.save(stream, known[np.argsort(known["key"])], allow_pickle=False)
        with optional_write("the cache of decoded images"):
            write_atomically(self.path, stream.getvalue())
