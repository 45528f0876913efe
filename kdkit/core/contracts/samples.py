"""Samples, and what sources say beside them. Import from ``kdkit.core.contracts``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Split = Literal["train", "calibration", "test"]
SPLITS: tuple[Split, ...] = ("train", "calibration", "test")
USUAL_SPLITS: Mapping[str, Split] = {
    **dict.fromkeys(("train", "training"), SPLITS[0]),
    **dict.fromkeys(("calibration", "val", "valid", "validation", "dev"), SPLITS[1]),
    **dict.fromkeys(("test", "testing"), SPLITS[2]),
}
"""Usual names of splits, in lower case."""


METADATA = "metadata"
"""Key of ``Sample.extra`` with facts that no model reads, by name: sex, scanner, survival time. They are no part of a
sample's digest, so features stay valid when a column is added."""


FINDINGS = "findings"
"""Key of ``Sample.extra`` with all classes of a sample that may have several, or none: a list of texts. They too are no
part of a sample's digest."""


IMAGE_CAPTIONS = "image_captions"
"""Key of ``Sample.extra`` in training samples that are one image with different captions: how many captions it has.
A pass over the data takes one of them, at random. It is no part of a sample's digest."""


QUESTION = "question"
"""Key of the metadata with a question about the image, which the text encoders of teachers and student read."""


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How the images of a sample are decoded: options of its data entry, and the limit of the student's family.

    Attributes:
        frame: the frame of a file with several, from 0; None refuses such files.
        max_pixels: refuse larger images; None is Pillow's limit.
        max_aspect: refuse images with a side longer than this times the other; None for no limit.
        jpeg_min_side: decode JPEGs at 1/2, 1/4 or 1/8 of their size, as far as both sides keep at least so many
            pixels; None decodes them at their size.
    """

    frame: int | None = None
    max_pixels: int | None = None
    max_aspect: float | None = None
    jpeg_min_side: int | None = None


@dataclass(frozen=True, slots=True)
class ImageLocation:
    """Where an image is that is no image file of its own: a member of a tar file, a cell of a table, a DICOM instance.

    Attributes:
        reader: name of the image reader that reads it (the hook ``kdkit_image_readers``).
        file: the file that holds it, absolute.
        at: where in the file, and how to read it, as the reader defines; JSON-able.
        name: its name in the file, for messages.
    """

    reader: str
    file: Path
    at: tuple[str | int | float | None, ...] = ()
    name: str = ""

    def __str__(self) -> str:
        return f"{self.file}[{self.name}]" if self.name else str(self.file)


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A part of a file that holds the images of consecutive rows of a column, and nothing else.

    Attributes:
        start, end: bytes of the file.
        column, first, stop: the images are those at ``(column, row)`` with ``first <= row < stop``.
        unpacked: bytes of the images, without the file's compression.
    """

    start: int
    end: int
    column: str
    first: int
    stop: int
    unpacked: int


ImageRef = Path | ImageLocation
"""Where an image is: an image file, or a place that a reader knows."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or record that a source does not turn into a sample. Sources yield it beside samples, so that
    ``kdkit data check`` counts it.

    Attributes:
        what: its kind, in the plural: ``hidden files``.
        where: ``file:line`` or the file.
        fix: the remedy.
        level: ``note`` for what is no data; ``warning`` for data that an option or the format leaves out, of which
            every command warns; ``problem`` for data that is lost, which also fails ``kdkit data check``.
    """

    what: str
    where: str
    fix: str = ""
    level: Literal["note", "warning", "problem"] = "problem"


@dataclass(frozen=True, slots=True)
class Recognition:
    """How a source would read a path; for ``kdkit init --from``.

    Attributes:
        path: the file or folder that the data entry names.
        options: those that the source needs.
        says: what it takes the path for, a line each: layout, classes, splits, encoding.
        certainty: 0 to 100; the source with the largest number is taken.
        warns: what is odd about the data, a line each.
    """

    path: Path
    options: Mapping[str, Any]
    says: tuple[str, ...]
    certainty: int
    warns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its text.

    Attributes:
        id: stable and unique in the project; cache key.
        image: the image file, or where else the image is.
        text: the caption.
        domain: unit of trust and forgetting (a modality or a data set).
        label: the class, if known; zero-shot evaluation and trust use labeled samples only.
        split: ``train`` for training, ``calibration`` for trust, ``test`` for reports.
        origin: ``file:line`` or the file, for error messages.
        extra: data for specific families (boxes, a conversation, a task name); its ``images`` are further images.
        image_options: how its images are decoded; kdkit sets them from the data entry.
    """

    id: str
    image: ImageRef
    text: str
    domain: str
    label: str | None = None
    split: Split = "train"
    origin: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    image_options: ImageOptions = ImageOptions()


def columns_of(sample: Sample) -> dict[str, str]:
    """The metadata of a sample, and texts and numbers of its ``extra``, by name."""
    own = sample.extra.get(METADATA)
    found = {**sample.extra, **(own if isinstance(own, Mapping) else {})}
    return {
        name: str(value).strip()
        for name, value in found.items()
        if isinstance(value, str | int | float) and str(value).strip()
    }


def question_of(sample: Sample) -> str:
    """The question about a sample's image that its metadata hold; empty without one."""
    metadata = sample.extra.get(METADATA)
    return str(metadata.get(QUESTION) or "") if isinstance(metadata, Mapping) else ""
