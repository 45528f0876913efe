"""Decoding an image: the one place where a file becomes pixels."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from kdkit.core.contracts import Sample
from kdkit.core.errors import ExitCode, KdkitError

_DEEP = ("I", "F")
"""First letters of PIL's modes of more than 8 bits: ``convert("RGB")`` would silently clip them to white."""


def open_image(sample: Sample) -> Image.Image:
    """The sample's image, decoded to RGB. EXIF orientation is ignored, as open_clip and torchvision do.

    Raises:
        KdkitError: as :func:`decode`, naming the sample as well.
    """
    try:
        return decode(sample.image)
    except KdkitError as error:
        raise KdkitError(
            f"{error.what} of sample '{sample.id}'",
            where=str(sample.image),
            why=error.why,
            fix=error.fix,
            code=error.code,
        ) from error


def decode(path: Path) -> Image.Image:
    """The file's pixels as RGB.

    Raises:
        KdkitError: when the file cannot be read, is no image, is damaged, or has more than 8 bits a channel.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(_DEEP):
                raise KdkitError(
                    f"image with more than 8 bits a channel (mode {image.mode})",
                    where=str(path),
                    why="which values are black and white is a choice of yours (a window)",
                    fix="convert it to 8 bits",
                )
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise KdkitError(
            "unreadable image",
            where=str(path),
            why=str(error) or type(error).__name__,
            fix="repair or remove the file, or set skip_unreadable: true in the options of its data entry",
            code=ExitCode.MISSING if isinstance(error, FileNotFoundError) else ExitCode.USAGE,
        ) from error
