"""Decoding an image: the one place where a file becomes pixels."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Sample

_DEEP = ("I", "F")
"""First letters of PIL's modes of more than 8 bits: ``convert("RGB")`` would silently clip them to white."""


def decoding_threads() -> int:
    """How many threads should decode and prepare images: one for each processor that this process may use, shared
    with the other processes of a run on this machine (``LOCAL_WORLD_SIZE``); 4 at least, 16 at most."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    beside = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(4, min(16, processors // max(1, int(beside) if beside.isdigit() else 1)))


def open_image(sample: Sample) -> Image.Image:
    """The sample's image, decoded to RGB. EXIF orientation is ignored, as open_clip and torchvision do.

    Raises:
        KdkitError: as :func:`decode`, naming the sample as well.
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
        KdkitError: when the file cannot be read, is no image, is damaged, or has more than 8 bits a channel.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(_DEEP):
                raise KdkitError(
                    "KD-DATA-002",
                    f"image with more than 8 bits a channel (mode {image.mode})",
                    where=str(path),
                    why="which values are black and white is a choice of yours (a window)",
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
