"""What every image reader promises: the same bytes each time, from any thread, and few open files."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, ClassVar

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import DecodesImages, ImageLocation, ImageReader
from kdkit.core.plugin_system.catalogue import Family
from kdkit.testing.contract import Contract, once, skip

if TYPE_CHECKING:
    from PIL.Image import Image

READS = 100
MAX_OPEN = 16
"""Files that a reader may keep open."""


class ImageReaderContract(Contract):
    """Subclass with ``name``, and override :meth:`location`."""

    family: ClassVar[Family] = "reader"

    def location(self) -> ImageLocation:
        """An image. Write its file into :meth:`scratch`."""
        raise skip("a reader needs an example; override location() of ImageReaderContract")

    def absent(self) -> ImageLocation:
        """A place without an image. By default :meth:`location` in a file that does not exist."""
        good = self._location()
        return replace(good, file=good.file.parent / "no-such-file")

    def test_content(self) -> None:
        """The content is bytes, the same each time and from another reader."""
        reader, location = self._reader(), self._location()
        content = reader.content(location)
        assert isinstance(content, bytes), f"expected bytes, got {type(content).__name__}"
        assert content, "expected bytes, got none"
        assert reader.content(location) == content, "the content differs when read again"
        assert self.make().content(location) == content, "another reader reads other content"

    def test_picture(self) -> None:
        """The content is an image file, or the reader decodes it: to 8 bits per channel, the same each time."""
        pictures = [self._decode(self._reader()), self._decode(self._reader())]
        modes = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
        assert pictures[0].mode in modes, f"expected 8 bits per channel, got mode {pictures[0].mode}"
        assert len({picture.convert("RGB").tobytes() for picture in pictures}) == 1, "the pixels differ"

    def test_threads(self) -> None:
        """Several threads read the same content at once."""
        reader, location = self.make(), self._location()
        with ThreadPoolExecutor(8) as pool:
            found = set(pool.map(reader.content, [location] * 32))
        assert found == {self._reader().content(location)}, "the content differs between threads"

    def test_open_files(self) -> None:
        """Reading many times keeps few files open."""
        if not os.path.isdir("/dev/fd"):
            raise skip("this system does not list open files")
        reader, location = self.make(), self._location()
        before = len(os.listdir("/dev/fd"))
        for _ in range(READS):
            reader.content(location)
        more = len(os.listdir("/dev/fd")) - before
        assert more <= MAX_OPEN, f"{more} more files are open after {READS} reads"

    def test_absent_image(self) -> None:
        """A place without an image is a KdkitError or an OSError."""
        absent = self.absent()
        try:
            self.make().content(absent)
        except (KdkitError, OSError):
            return
        except Exception as error:
            raise AssertionError(f"expected KdkitError, got {type(error).__name__}: {error}") from error
        raise AssertionError(f"expected KdkitError for {absent}, got content")

    @once
    def _location(self) -> ImageLocation:
        return self.location()

    @once
    def _reader(self) -> ImageReader:
        reader: ImageReader = self.make()
        return reader

    def _decode(self, reader: ImageReader) -> Image:
        from PIL import Image

        content = reader.content(self._location())
        if isinstance(reader, DecodesImages):
            return reader.decode(self._location(), content)
        image = Image.open(BytesIO(content))
        image.load()
        return image
