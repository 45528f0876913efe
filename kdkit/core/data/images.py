"""Decoding of images."""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from io import BytesIO
from threading import Lock
from typing import cast

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.threads import usable_processors
from kdkit.core.contracts import ImageLocation, ImageOptions, ImageRef, Sample
from kdkit.core.data.locations import further_images_of, image_reader, read_content

PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 2**62)
"""Pixels of the largest image that Pillow opens; above half of them it only warns, which kdkit does not show."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # transparency, damaged tags
NO_OPTIONS = ImageOptions()
_limit = Lock()
_DEEP = ("I", "F")
"""First letters of PIL's modes of more than 8 bits, which ``convert("RGB")`` would clip to white."""
_DEEP_RAW = re.compile(r";16[BLN]$")
"""Pillow's raw modes of 16 bits per sample of which it keeps the high byte (``BGR;16`` has 16 bits per pixel)."""
_BITS_PER_SAMPLE = 258
"""The TIFF tag."""


@dataclass(frozen=True, slots=True)
class StoredAs:
    """How an image is stored: ``kind`` is its format and Pillow's mode (``JPEG L``), ``frames`` those of its file."""

    kind: str
    frames: int


class UnreadableImage(KdkitError):
    """The image of a sample cannot be decoded, or its data entry does not allow it. ``what`` is the kind."""


def decoding_threads() -> int:
    """Threads for decoding: one per usable processor, divided by ``LOCAL_WORLD_SIZE``; at least 4, at most 16."""
    processors = usable_processors()
    beside = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(4, min(16, processors // max(1, int(beside) if beside.isdigit() else 1)))


def open_image(sample: Sample) -> Image.Image:
    """The sample's image, decoded to RGB. EXIF orientation is ignored, as in torchvision.

    Raises:
        UnreadableImage: as :func:`decode`, with the sample's id.
    """
    return _open_for(sample, sample.image)


def open_further_images(sample: Sample) -> list[Image.Image]:
    """The images of ``extra["images"]``, as :func:`open_image`."""
    return [_open_for(sample, ref) for ref in further_images_of(sample)]


def _open_for(sample: Sample, ref: ImageRef) -> Image.Image:
    try:
        return decode(ref, sample.image_options)
    except UnreadableImage as error:
        raise UnreadableImage(
            "KD-DATA-001",
            f"{error.what} of sample '{sample.id}'",
            where=str(ref),
            why=error.why,
            fix=error.fix,
            code=error.code,
        ) from error


def decode(path: ImageRef, options: ImageOptions = NO_OPTIONS) -> Image.Image:
    """The pixels of an image file, or of an image elsewhere, as RGB.

    Raises:
        UnreadableImage: the image is missing, damaged, no image, has more than 8 bits per sample, or is not allowed by
            ``options``.
        KdkitError: its reader is not installed, or lacks a package.
    """
    return inspect(path, options)[0]


def inspect(path: ImageRef, options: ImageOptions = NO_OPTIONS) -> tuple[Image.Image, StoredAs]:
    """As :func:`decode`, with how the image is stored."""
    if isinstance(path, ImageLocation):
        image_reader(path.reader)
    try:
        return _decode(path, options)
    except Image.DecompressionBombError as error:
        if options.max_pixels is None:
            pixels = int(next(iter(re.findall(r"\d+", str(error))), "0"))
            raise _too_large(path, pixels, PIXELS) from None
        with _limit:  # Pillow compares with its own limit also while it decodes
            usual = Image.MAX_IMAGE_PIXELS
            Image.MAX_IMAGE_PIXELS = None
            try:
                return _decode(path, options)
            finally:
                Image.MAX_IMAGE_PIXELS = usual


def _opened(path: ImageRef) -> Image.Image:
    if not isinstance(path, ImageLocation):
        return Image.open(path, formats=_formats())
    reader = image_reader(path.reader)
    content = reader.content(path)
    decoder = getattr(reader, "decode", None)  # of DecodesImages, whose isinstance is slow
    image = Image.open(BytesIO(content), formats=_formats()) if decoder is None else decoder(path, content)
    return cast(Image.Image, image)


def _formats() -> list[str]:
    """Those that Pillow reads itself: for EPS it runs Ghostscript, and an image may hold any PostScript program."""
    Image.init()
    return [name for name in Image.ID if name != "EPS"]


def _decode(path: ImageRef, options: ImageOptions) -> tuple[Image.Image, StoredAs]:
    try:
        with _opened(path) as image:
            stored = StoredAs(f"{image.format or 'pixels'} {image.mode}", _choose_frame(image, path, options.frame))
            _check_size(image, path, options)
            if options.jpeg_min_side is not None and image.format == "JPEG":
                image.draft(None, (options.jpeg_min_side, options.jpeg_min_side))  # libjpeg's scaled inverse DCT
            if bits := _bits_per_sample(image, path):
                raise UnreadableImage(
                    "KD-DATA-002",
                    "more than 8 bits per channel",
                    where=str(path),
                    why=f"{bits}: the range of values that becomes black to white (a window) must be chosen",
                    fix="convert it to 8 bits",
                )
            return image.convert("RGB"), stored
    except (UnreadableImage, Image.DecompressionBombError):
        raise
    except KdkitError as error:  # of a reader
        raise UnreadableImage(
            "KD-DATA-020",
            error.what,
            where=error.where or str(path),
            why=error.why,
            fix=error.fix,
            code=error.code,
        ) from error
    except Exception as error:  # decoders of damaged files raise anything
        raise UnreadableImage(
            "KD-DATA-003",
            "unreadable image",
            where=str(path),
            why=_kind_of(path) or str(error) or type(error).__name__,
            fix="repair or remove the file, or set skip_unreadable: true in the options of its data entry",
            code=ExitCode.MISSING if isinstance(error, FileNotFoundError) else ExitCode.USAGE,
        ) from error


def _check_size(image: Image.Image, path: ImageRef, options: ImageOptions) -> None:
    width, height = image.size
    if width * height > (limit := options.max_pixels or PIXELS):
        raise _too_large(path, width * height, limit)
    if options.max_aspect is not None and max(width, height) > options.max_aspect * min(width, height):
        raise UnreadableImage(
            "KD-DATA-014",
            "image too thin for the student",
            where=str(path),
            why=f"{width} x {height} pixels; the student's family takes sides up to 1 : {options.max_aspect:g}",
            fix="crop or remove the image, or set skip_unreadable: true in the options of its data entry",
        )


def _too_large(path: ImageRef, pixels: int, limit: int) -> UnreadableImage:
    return UnreadableImage(
        "KD-DATA-015",
        "more pixels than allowed",
        where=str(path),
        why=f"{pixels} pixels, the limit is {limit}; the option max_pixels of its data entry sets another",
        fix=f"set max_pixels: {pixels} in the options of its data entry, or make the image smaller",
    )


def _choose_frame(image: Image.Image, path: ImageRef, frame: int | None) -> int:
    """Seek ``frame``; returns how many there are.

    The further pictures of a camera's JPEG (MPO) are previews and count as no frames.
    """
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > 1 and frame is None:
        raise UnreadableImage(
            "KD-DATA-016",
            "several frames",
            where=str(path),
            why=f"{frames} frames; the option frame of its data entry chooses one",
            fix="set frame: 0 (the first) in the options of its data entry, or write each frame to a file",
        )
    if frames > 1 and frame:
        if frame >= frames:
            raise UnreadableImage(
                "KD-DATA-017",
                "missing frame",
                where=str(path),
                why=f"{frames} frames, and frame {frame} is chosen (the first is 0)",
                fix="correct the option frame of its data entry",
            )
        image.seek(frame)
    return frames


def _bits_per_sample(image: Image.Image, path: ImageRef) -> str:
    """The file's depth if it is more than 8 bits, else an empty text. Pillow's mode alone would hide it."""
    if image.mode.startswith(_DEEP):
        return f"mode {image.mode}"
    bits = 8
    if isinstance(image, TiffImageFile):
        bits = max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,)))
    elif image.format == "JPEG2000":
        bits = _bits_of_jpeg2000(read_content(path))
    elif image.format == "AVIF":
        bits = _bits_of_avif(read_content(path))
    for tile in getattr(image, "tile", ()):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if image.format == "PPM" and isinstance(arguments[-1], int) and arguments[-1] > 255:  # the largest value
            bits = arguments[-1].bit_length()
        elif isinstance(arguments[0], str) and _DEEP_RAW.search(arguments[0]):
            bits = 16
    return f"{bits} bits" if bits > 8 else ""


def _bits_of_jpeg2000(content: bytes) -> int:
    """Bits per sample by the SIZ marker segment: 3 bytes per component, of which the first is the depth."""
    found = re.search(rb"\xff\x4f\xff\x51.{37}(.)(.{0,48})", content, re.S)
    return max((depth & 0x7F) + 1 for depth in found[2][: 3 * found[1][0] : 3]) if found else 8


def _bits_of_avif(content: bytes) -> int:
    """Bits per sample by the ``av1C`` boxes: version, profile and level, then flags for 10 and for 12 bits."""
    flags = [found[1][0] for found in re.finditer(rb"av1C\x81.(.)", content, re.S)]
    return max((12 if flag & 0x20 else 10 for flag in flags if flag & 0x40), default=8)


def _kind_of(path: ImageRef) -> str:
    """What a file is that is no image, where its first bytes say so."""
    try:
        if isinstance(path, ImageLocation):
            head = read_content(path)[:132]
        else:
            with open(path, "rb") as handle:
                head = handle.read(132)
    except Exception:  # a reader of a damaged file raises anything
        return ""
    if not head:
        return "the image is empty" if isinstance(path, ImageLocation) else "the file is empty"
    if head[128:] == b"DICM":
        return "a DICOM file; the source dicom reads it, and manifests do if it ends in .dcm"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS; 'git lfs pull' fetches the file"
    return ""
