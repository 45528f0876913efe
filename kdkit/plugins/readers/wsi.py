"""Tiles of whole-slide images: ``at`` is the corner in pixels of level 0, the level, and the pixels of a side, as they
are read there and as they become.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

from PIL import Image

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import ImageLocation
from kdkit.plugins.readers.forks import start_anew
from kdkit.plugins.readers.pixels import pack_pixels, unpack_pixels
from kdkit.plugins.readers.wsi_files import DAMAGED, damaged_pixels, open_slide, openslide, read_region

MAX_SLIDES = 32
"""Slides that stay open."""
CACHE_BYTES = 2**28
"""Bytes of decoded blocks that OpenSlide keeps, of all slides together."""
MAX_SIDE = 2**13
"""Pixels of a tile's side."""


class SlideReader:
    """Keeps slides open. Threads read one slide at once."""

    def __init__(self) -> None:
        self._package = openslide("")
        self._inherited: list[Any] = []
        start_anew(self._reset)

    def _reset(self) -> None:
        # Closing slides of the parent would take OpenSlide's locks, so a child keeps them.
        self._inherited.append(getattr(self, "_slides", None))
        self._lock = Lock()
        self._slides: OrderedDict[tuple[Path, int, int], Any] = OrderedDict()
        self._cache = self._package.OpenSlideCache(CACHE_BYTES)

    def content(self, location: ImageLocation) -> bytes:
        """The pixels of the tile, as :mod:`kdkit.plugins.readers.pixels` packs them.

        So the digest of a tile is that of its pixels: exact, and the same in a copy of the slide in another file
        format, or without its label. Where the slide is damaged it says so, for :meth:`decode`.

        Raises:
            KdkitError: the slide cannot be opened, or has no such tile.
        """
        match location.at:
            case (int(x), int(y), int(level), int(read), int(size)) if 0 < size <= MAX_SIDE and read > 0:
                pass
            case _:
                raise _no_tile(location, "at is not a corner, a level and two sides")
        try:
            picture = self._region(location, x, y, level, read)
        except KdkitError as error:
            if error.id != DAMAGED:
                raise error.at(str(location)) from None
            return f"{DAMAGED}{error.why}".encode()
        if read != size:
            picture = picture.resize((size, size), Image.Resampling.BICUBIC)
        return pack_pixels(size, size, 3, picture.tobytes())

    def decode(self, location: ImageLocation, content: bytes) -> Image.Image:
        """The tile.

        Raises:
            KdkitError: its pixels are damaged.
        """
        if content.startswith(DAMAGED.encode()):
            raise damaged_pixels(content.decode().removeprefix(DAMAGED)).at(str(location))
        return unpack_pixels(content)

    def _region(self, location: ImageLocation, x: int, y: int, level: int, read: int) -> Image.Image:
        """Read it; once more from the slide opened anew, since the error of an OpenSlide object stays."""
        for again in (False, True):
            key, slide = self._slide(location.file)
            width, height = slide.dimensions
            if not (0 <= x < width and 0 <= y < height):
                raise _no_tile(location, f"the slide has {width} x {height} pixels")
            if not 0 <= level < slide.level_count:
                raise _no_tile(location, f"the slide has {slide.level_count} levels, and level {level} is asked for")
            try:
                return read_region(slide, x, y, level, (read, read))
            except KdkitError as error:
                with self._lock:
                    self._slides.pop(key, None)
                if again or error.id != DAMAGED:
                    raise
        raise AssertionError

    def _slide(self, path: Path) -> tuple[tuple[Path, int, int], Any]:
        """The open slide. One that is put out is closed when no thread reads it any more."""
        found = os.stat(path)
        key = (path, found.st_size, found.st_mtime_ns)
        with self._lock:
            if key not in self._slides:
                slide = open_slide(path)
                slide.set_cache(self._cache)
                self._slides[key] = slide
            self._slides.move_to_end(key)
            while len(self._slides) > MAX_SLIDES:
                self._slides.popitem(last=False)
            return key, self._slides[key]


def _no_tile(location: ImageLocation, why: str) -> KdkitError:
    return KdkitError(
        "KD-SRC-344",
        "the slide has no such tile",
        where=str(location),
        why=why,
        fix="restore the slide; if it was written again, read the data entry again",
    )
