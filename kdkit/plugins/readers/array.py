"""Rows of arrays in ``.npz`` and ``.npy`` files: ``at`` is the array (empty for ``.npy``) and the number of the row."""

from __future__ import annotations

import math
import os
import struct
import zipfile
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import ImageLocation
from kdkit.plugins.readers.forks import start_anew
from kdkit.plugins.readers.pixels import pack_pixels, unpack_pixels

MAX_BYTES = 2**31
"""Bytes of decompressed arrays that are kept in memory."""
DAMAGED = (OSError, ValueError, EOFError, RuntimeError, MemoryError, struct.error, zipfile.BadZipFile, zlib.error)
"""What zipfile and numpy raise for damaged, encrypted and unusually compressed files."""
LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Signature, lengths of the name and of the extra field: the data of a zip member follows these."""


@dataclass(frozen=True)
class StoredArray:
    """Where an array of images is.

    Attributes:
        shape: (N, H, W), or (N, H, W, 1) or (N, H, W, 3).
        dtype: of the file.
        offset: of its first byte in the file; None if it is compressed.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int | None

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class ArrayReader:
    """Reads one row of an array that is stored plainly; decompresses the others as a whole, once."""

    def __init__(self) -> None:
        start_anew(self._reset)

    def _reset(self) -> None:
        self._lock = Lock()
        self._headers: dict[tuple[Path, str, int, int], StoredArray] = {}
        self._arrays: OrderedDict[tuple[Path, str, int, int], NDArray[Any]] = OrderedDict()

    def content(self, location: ImageLocation) -> bytes:
        """The pixels, as :mod:`kdkit.plugins.readers.pixels` packs them.

        Raises:
            KdkitError: no such array or row, or an array that holds no 8-bit images.
        """
        match location.at:
            case (str(name), int(row)):
                pass
            case _:
                raise _no_image(location, "at is not an array and a row")
        found = os.stat(location.file)
        key = (location.file, name, found.st_size, found.st_mtime_ns)
        with self._lock:
            if key not in self._headers:
                self._headers[key] = find_array(location.file, name)
            array = self._headers[key]
            check_images(array, location.file, name)
            if not 0 <= row < array.shape[0]:
                raise _no_image(location, f"the array has {array.shape[0]} rows")
            pixels = self._row(location.file, name, row, array, key)
        height, width, channels = (*array.shape[1:], 1)[:3]
        return pack_pixels(height, width, channels, pixels)

    def _row(self, file: Path, name: str, row: int, array: StoredArray, key: tuple[Path, str, int, int]) -> bytes:
        if array.offset is not None:
            with open(file, "rb") as handle:
                handle.seek(array.offset + row * array.row_bytes)
                found = handle.read(array.row_bytes)
            if len(found) < array.row_bytes:
                raise _no_image(_row(file, name, row), "the file ends before it")
            return found
        if key not in self._arrays:
            try:
                with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as member:
                    self._arrays[key] = np.lib.format.read_array(member, allow_pickle=False)
            except DAMAGED as error:
                raise _no_image(_row(file, name, row), f"the array cannot be read: {error}") from None
        self._arrays.move_to_end(key)
        while len(self._arrays) > 1 and sum(kept.nbytes for kept in self._arrays.values()) > MAX_BYTES:
            self._arrays.popitem(last=False)
        pixels: bytes = self._arrays[key][row].tobytes()
        return pixels

    def decode(self, location: ImageLocation, content: bytes) -> Image.Image:
        """A gray or RGB picture."""
        del location
        return unpack_pixels(content)


def find_array(file: Path, name: str) -> StoredArray:
    """The array ``name`` of a ``.npz`` file, or that of a ``.npy`` file; its data are not read.

    Raises:
        KdkitError: no such array, or a damaged file.
    """
    try:
        if file.suffix == ".npy":
            with open(file, "rb") as handle:
                shape, dtype = _header(handle)
                return _whole(StoredArray(shape, dtype, handle.tell()), file)
        with zipfile.ZipFile(file) as archive:
            member = archive.getinfo(f"{name}.npy")
            with archive.open(member) as stream:
                shape, dtype = _header(stream)
                length = stream.tell()
            if member.compress_type != zipfile.ZIP_STORED:
                return StoredArray(shape, dtype, None)
        with open(file, "rb") as handle:
            handle.seek(member.header_offset)
            signature, names, extra = LOCAL_HEADER.unpack(handle.read(LOCAL_HEADER.size))
        if signature != b"PK\x03\x04":
            raise ValueError("a member of the zip file has no header")
        start = member.header_offset + LOCAL_HEADER.size + names + extra + length
        return _whole(StoredArray(shape, dtype, start), file)
    except KeyError:
        why, fix = f"no array '{name}'", "name a file with such an array"
    except DAMAGED as error:
        why, fix = str(error), "download or write the file again"
    raise KdkitError("KD-SRC-080", "this file of arrays cannot be read", where=str(file), why=why, fix=fix)


def _whole(array: StoredArray, file: Path) -> StoredArray:
    assert array.offset is not None
    if array.offset + array.shape[0] * array.row_bytes > os.path.getsize(file):
        raise ValueError(f"the file ends within the array of shape {array.shape}")
    return array


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    shape, fortran, dtype = read_header(stream)
    if fortran or dtype.hasobject:
        raise ValueError("the array is in Fortran order, or holds Python objects")
    return shape, dtype


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it is in Fortran order, and type of an array; its data are not read.

    Raises:
        ValueError: this is no array.
    """
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    found: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(stream)
    return found


def check_images(array: StoredArray, file: Path, name: str) -> None:
    """Raises: KdkitError when an array holds no gray or RGB images of 8 bits, or is too large to decompress."""
    shape = array.shape
    where = f"{file}[{name}]"
    if array.dtype != np.uint8 or len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        raise KdkitError(
            "KD-SRC-081",
            "the array holds no gray or RGB images of 8 bits",
            where=where,
            why=f"{array.dtype} of shape {shape}; (N, H, W), (N, H, W, 1) or (N, H, W, 3) uint8 is expected",
            fix="convert it: the range of values that becomes black to white is your choice",
        )
    if array.offset is None and math.prod(shape) > MAX_BYTES:
        raise KdkitError(
            "KD-SRC-082",
            "the compressed array is too large for random access",
            where=where,
            why=f"{math.prod(shape) / 2**30:.1f} GiB; compressed arrays are kept in memory, up to "
            f"{MAX_BYTES >> 30} GiB",
            fix=f"unzip {file.name} -d {file.stem}, and name the folder",
        )


def _row(file: Path, name: str, row: int) -> ImageLocation:
    return ImageLocation("array", file, (name, row), f"{name} {row}")


def _no_image(location: ImageLocation, why: str) -> KdkitError:
    return KdkitError(
        "KD-SRC-083",
        "the array has no such image",
        where=str(location),
        why=why,
        fix="download or write the file again",
    )
