"""Small pictures for HTML pages, as JPEG files without any metadata."""

from __future__ import annotations

import io

from PIL import Image, ImageOps

from kdkit.core.contracts import Sample
from kdkit.core.data.images import open_image


def thumbnail(sample: Sample, side: int) -> bytes:
    """The pixels of a sample's image alone: nothing that its file says beside them, such as a comment.

    Args:
        sample: its first image is shown.
        side: pixels of the longer side.

    Raises:
        KdkitError, OSError: the image cannot be read.
    """
    picture = ImageOps.contain(open_image(sample), (side, side))
    bare = Image.new("RGB", picture.size)
    bare.paste(picture)
    stream = io.BytesIO()
    bare.save(stream, "JPEG", quality=82)
    return stream.getvalue()
