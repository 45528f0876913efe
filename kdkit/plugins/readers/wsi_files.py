"""OpenSlide, an extra. Of a slide's properties only sizes are read; label and macro images never are.

What OpenSlide says of a damaged file may hold values of its header, so it is not shown.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

from PIL import Image

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.data.images import PIXELS

DAMAGED = "KD-SRC-343"


def openslide(where: str) -> Any:
    """The package.

    Raises:
        KdkitError: it or its library is not installed.
    """
    try:
        import openslide as found
    except (ImportError, OSError):
        raise KdkitError(
            "KD-SRC-340",
            "whole-slide images need OpenSlide",
            where=where,
            fix="pip install 'kdkit[wsi]'",
            code=ExitCode.MISSING,
        ) from None
    return found


def open_slide(path: Path) -> Any:
    """``openslide.OpenSlide``; threads may share it.

    Raises:
        KdkitError: OpenSlide is not installed, or cannot open the file.
    """
    package = openslide(str(path))
    try:
        return package.OpenSlide(path)
    except (package.OpenSlideError, OSError, ValueError) as error:
        unknown = isinstance(error, package.OpenSlideUnsupportedFormatError)
        why = "no format of slides that OpenSlide knows" if unknown else "its header is damaged"
        if not path.exists():
            why = "no such file"
        fix = "copy it again, or convert it to a tiled TIFF pyramid (vips tiffsave --tile --pyramid)"
        raise KdkitError(
            "KD-SRC-341", "this slide cannot be opened", where=str(path), why=why, fix=fix, code=ExitCode.MISSING
        ) from None


def read_region(slide: Any, x: int, y: int, level: int, size: tuple[int, int]) -> Image.Image:
    """A region as RGB; what was not scanned is white, or of the color that the slide names.

    Args:
        slide: of :func:`open_slide`.
        x, y: of the upper left corner, in pixels of level 0.
        level: that is read.
        size: width and height in pixels of that level.

    Raises:
        KdkitError: more pixels than Pillow's limit, or damaged ones. The slide is of no use any more then.
    """
    if size[0] * size[1] > PIXELS:
        raise KdkitError(
            "KD-SRC-342",
            "more pixels than allowed",
            why=f"a tile of {size[0]} x {size[1]} pixels; the limit is {PIXELS}",
            fix="choose smaller tiles",
        )
    try:
        region = slide.read_region((x, y), level, size)
    except Exception as error:  # its text may hold values of the file
        raise damaged_pixels(f"at {x}, {y} of level {level} ({type(error).__name__})") from None
    if region.getchannel("A").getextrema()[0] == 255:
        return region.convert("RGB")  # type: ignore[no-any-return]
    color = slide.properties.get("openslide.background-color", "ffffff")
    picture = Image.new("RGB", region.size, f"#{color}" if is_color(color) else "white")
    picture.paste(region, mask=region.getchannel("A"))
    return picture


def damaged_pixels(why: str) -> KdkitError:
    """The error for blocks that cannot be decoded."""
    fix = "copy the slide again, or set skip_unreadable: true in the options of its data entry"
    return KdkitError("KD-SRC-343", "damaged pixels in this slide", why=why, fix=fix)


def is_color(text: str) -> bool:
    """Whether these are six hexadecimal digits."""
    return len(text) == 6 and all(digit in string.hexdigits for digit in text)
