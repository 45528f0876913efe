"""Where images are: image files, and places in other files, which readers of plugins read."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import ImageLocation, ImageReader, ImageRef, Sample
from kdkit.core.plugin_system.discovery import load_catalogue

PRIVATE = ("dicom", "wsi")
"""Readers of files whose paths may name patients: pages for others show none of them."""


@cache
def image_reader(name: str) -> ImageReader:
    """The image reader ``name``, made once per process.

    Raises:
        KdkitError: there is none, or a package that it needs is not installed.
    """
    reader: ImageReader = load_catalogue().make("reader", name)
    if not callable(getattr(reader, "content", None)):
        raise KdkitError(
            "KD-DATA-019",
            f"the image reader '{name}' has no method content",
            fix="report this to the authors of the plugin",
            code=ExitCode.PLUGIN,
        )
    return reader


def images_of(sample: Sample) -> tuple[ImageRef, ...]:
    """All images of a sample, the first one first."""
    return (sample.image, *further_images_of(sample))


def further_images_of(sample: Sample) -> tuple[ImageRef, ...]:
    """The images of ``extra["images"]``."""
    found = sample.extra.get("images") or ()
    return tuple(one if isinstance(one, ImageLocation) else Path(one) for one in found)


def file_of(ref: ImageRef) -> Path:
    """The file that is the image or holds it."""
    return ref.file if isinstance(ref, ImageLocation) else ref


def key_of(ref: ImageRef) -> str:
    """A text that no other image has: the path of an image file. Paths have no NUL, so the two kinds never meet."""
    if isinstance(ref, ImageLocation):
        return f"{ref.file}\0{ref.reader}\0{json.dumps(ref.at)}"
    return str(ref)


def read_content(ref: ImageRef) -> bytes:
    """The bytes that decide the image's pixels: of an image file, all of it.

    Raises:
        KdkitError: as :meth:`kdkit.core.contracts.ImageReader.content`.
        OSError: the image file cannot be read.
    """
    return image_reader(ref.reader).content(ref) if isinstance(ref, ImageLocation) else ref.read_bytes()
