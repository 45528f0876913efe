"""Decoding of images."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Sample

_DEEP = ("I", "F")
"""First letters of PIL's modes of more than 8 bits, which ``convert("RGB")`` would clip to white."""


def decoding_threads() -> int:
    """Threads for decoding: one per usable processor, divided by ``LOCAL_WORLD_SIZE``; at least 4, at most 16."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    beside = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(4, min(16, processors // max(1, int(beside) if beside.isdigit() else 1)))


def open_image(sample: Sample) -> Image.Image:
    """The sample's image, decoded to RGB. EXIF orientation is ignored, as in torchvision.

    Raises:
        KdkitError: as :func:`decode`, with the sample's id.
    """
    try:
        return decode(sample.image)
    except KdkitError as error:
        raise KdkitError(
            "KD-DATA-001",
            f"{error.what} of sample '{sample.id}'",
            where=str(sample.image),
            why=error.why,
            fix=error.fix,
            code=error.code,
        ) from error


def decode(path: Path) -> Image.Image:
    """The file's pixels as RGB.

    Raises:
        KdkitError: the file is missing, damaged, no image, or has more than 8 bits per channel.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(_DEEP):
                raise KdkitError(
                    "KD-DATA-002",
                    f"image with more than 8 bits per channel (mode {image.mode})",
                    where=str(path),
                    why="the range of values that becomes black to white (a window) must be chosen",
                    fix="convert it to 8 bits",
                )
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise KdkitError(
            "KD-DATA-003",
            "unreadable image",
            where=str(path),
            why=str(error) or type(error).__name__,
            fix="repair or remove the file, or set skip_unreadable: true in the options of its data entry",
            code=ExitCode.MISSING if isinstance(error, FileNotFoundError) else ExitCode.USAGE,
        ) from error
