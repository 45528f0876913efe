"""Pixels as bytes, for readers whose images are no image files: equal pixels have equal digests, wherever they are."""

from __future__ import annotations

import struct

from PIL import Image

HEAD = struct.Struct("<3I")
"""Height, width and channels."""


def pack_pixels(height: int, width: int, channels: int, pixels: bytes) -> bytes:
    """The size, then (H, W) or (H, W, 3) uint8 ``pixels`` row by row."""
    return HEAD.pack(height, width, channels) + pixels


def unpack_pixels(content: bytes) -> Image.Image:
    """The gray or RGB picture of :func:`pack_pixels`."""
    height, width, channels = HEAD.unpack_from(content)
    return Image.frombytes("L" if channels == 1 else "RGB", (width, height), memoryview(content)[HEAD.size :])
