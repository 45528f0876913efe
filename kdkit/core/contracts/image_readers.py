"""Protocols of image readers. Import from ``kdkit.core.contracts``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from kdkit.core.contracts.samples import ImageLocation

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageReader(Protocol):
    """Reads images by their :class:`ImageLocation`. One object serves a process, from several threads; after a fork the
    child has a copy. It keeps few files open, and trusts neither the file nor ``at``."""

    def content(self, location: ImageLocation) -> bytes:
        """The bytes that decide the pixels. kdkit hashes them, so equal bytes share cached features.

        For a reader without ``decode`` they are an image file, such as a PNG or JPEG.

        Raises:
            KdkitError: there is no such image, or its file is damaged.
        """


@runtime_checkable
class DecodesImages(Protocol):
    """An image reader whose content is no image file."""

    def decode(self, location: ImageLocation, content: bytes) -> Image:
        """The picture in ``content``, in a mode of 8 bits per channel.

        Raises:
            KdkitError: it cannot be decoded, or a choice is missing (a window, a frame).
        """
