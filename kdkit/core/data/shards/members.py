"""The members of a sample in a WebDataset shard: its image, its text, and a JSON object with all else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import ImageLocation, ImageOptions, ImageRef, Sample
from kdkit.core.data.images import decode
from kdkit.core.data.locations import image_reader, read_content
from kdkit.core.data.table import GROUP

STARTS: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
    (b"II+\0", "tif"),
    (b"MM\0+", "tif"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jp2"),
    (b"\xff\x4f\xff\x51", "jp2"),
    (b"BM", "bmp"),
    *((b"P%d" % number + space, ending) for number, ending in ((4, "pbm"), (5, "pgm"), (6, "ppm"))
      for space in (b"\n", b" ", b"\r", b"\t")),
)  # fmt: skip
"""First bytes of image files -> ending that the source webdataset reads."""


class NoImage(Exception):
    """The row has no image file."""


@dataclass(frozen=True)
class Picture:
    """An image as it is written: its bytes, and the ending of their format."""

    content: bytes
    ending: str


def decodes_itself(reader: str) -> bool:
    """Whether images of a reader are no image files."""
    return getattr(image_reader(reader), "decode", None) is not None


def picture_of(ref: ImageRef, options: ImageOptions) -> Picture:
    """The bytes of an image file, unchanged; pixels of other images as PNG.

    Raises:
        NoImage: the image is missing, empty, or of an unknown format.
    """
    try:
        if isinstance(ref, ImageLocation) and decodes_itself(ref.reader):
            stream = BytesIO()
            decode(ref, options).save(stream, "PNG")
            return Picture(stream.getvalue(), "png")
        content = read_content(ref)
    except KdkitError as error:
        raise NoImage(f"{error.what}: {error.why}" if error.why else error.what) from None
    except OSError as error:
        raise NoImage(error.strerror or str(error)) from None
    return Picture(content, _ending(content))


def _ending(content: bytes) -> str:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    for start, ending in STARTS:
        if content.startswith(start):
            return ending
    raise NoImage("unknown format of the image" if content else "the image is empty")


def members_of(sample: Sample, key: str, picture: Picture | None, image: str) -> list[tuple[str, bytes]]:
    """(name, content) of a sample's members.

    Args:
        sample: of the data entry.
        key: its name in the shard; no other sample has it.
        picture: its image; None if an earlier sample of the shard has the same one.
        image: name of the member with its image.
    """
    fields: dict[str, Any] = {"id": sample.id, "domain": sample.domain, "label": sample.label, "split": sample.split}
    if sample.label is None:
        del fields["label"]
    extra = dict(sample.extra)
    if extra and next(reversed(extra)) == GROUP and type(extra[GROUP]) is str:
        fields[GROUP] = extra.pop(GROUP)
    if extra:
        fields["extra"] = extra
    if picture is None:
        fields["image"] = image
    found = [] if picture is None else [(image, picture.content)]
    if sample.text:
        found.append((f"{key}.txt", sample.text.encode()))
    found.append((f"{key}.json", json.dumps(fields, ensure_ascii=False, default=str).encode()))
    return found
