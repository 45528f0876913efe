"""Small pictures for the page, as JPEG files without any metadata."""

from __future__ import annotations

import io

from PIL import Image, ImageOps

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Sample
from kdkit.core.data.images import open_image

SIDE = 112
"""Pixels of the longer side."""


def thumbnail(sample: Sample) -> bytes | None:
    """The pixels of a sample's image alone, small; None if they cannot be read."""
    try:
        picture = ImageOps.contain(open_image(sample), (SIDE, SIDE))
    except KdkitError:
        return None
    bare = Image.new("RGB", picture.size)
    bare.paste(picture)
    stream = io.BytesIO()
    bare.save(stream, "JPEG", quality=80)
    return stream.getvalue()
