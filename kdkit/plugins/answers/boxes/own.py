"""Conversion of samples' boxes to a model's own coordinates, and back.

``extra["box_family"]`` of a sample names the family of its boxes (:data:`FAMILIES` of the codec); without it, texts are
not converted. For families in pixels of the resized image, a box refers to the last image before it, or to the image
number ``extra["box_image"]``, from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import AS_IS, BOX_FAMILY, IMAGE_MARK, Sample
from kdkit.plugins.answers.boxes.codec import FAMILIES, BoxCodec

BOX_IMAGE = "box_image"
Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class OwnBoxes:
    """The coordinates that one model writes.

    Attributes:
        family: one of the codec's, or :data:`AS_IS`.

    Raises:
        KdkitError: an unknown family.
    """

    family: str

    def __post_init__(self) -> None:
        if self.family != AS_IS and self.family not in FAMILIES:
            raise KdkitError(
                "KD-ANS-008",
                f"there is no family of boxes '{self.family}'",
                fix=did_you_mean(self.family, (*FAMILIES, AS_IS)),
            )

    @property
    def pixels(self) -> bool:
        """Whether its units depend on how images are resized."""
        return self.family != AS_IS and FAMILIES[self.family][1] == "pixels"

    def identity(self, least: int, most: int, unit: int) -> str:
        """Everything that determines how boxes are written, for the model's identity.

        The family; for units of pixels also the resizing: ``least`` to ``most`` pixels, sides in multiples of ``unit``.
        """
        limits = f" of images of {least} to {most} pixels, sides by {unit}"
        return self.family + limits * self.pixels

    def question(self, sample: Sample, sizes: Sequence[Size]) -> Sample:
        """The sample with its messages in the model's coordinates, converted without errors.

        Args:
            sizes: of the sample's images as the model sees them.
        """
        given = _family_of(sample, self.family)
        if given is None or given.family == self.family or not sample.extra.get("messages"):
            return sample
        shown, messages = 0, []
        for message in sample.extra["messages"]:
            parts = []
            for number, part in enumerate(str(message.get("content")).split(IMAGE_MARK)):
                shown += number > 0
                parts.append(given.reencode_leniently(part, self._codec(sample, sizes, shown)))
            messages.append({**message, "content": IMAGE_MARK.join(parts)} if "content" in message else message)
        return replace(sample, extra={**sample.extra, "messages": messages})

    def answer(self, sample: Sample, sizes: Sequence[Size]) -> str:
        """The sample's text in the model's coordinates.

        Raises:
            KdkitError: naming the sample: boxes of another family than declared, or outside of the image.
        """
        given = _family_of(sample, self.family)
        if given is None:
            return sample.text
        try:
            if given.family == self.family:
                given.parse(sample.text)
                return sample.text
            return given.reencode(sample.text, self._codec(sample, sizes, len(sizes)))
        except KdkitError as error:
            what = f"sample '{sample.id}': {error.what}"
            raise KdkitError("KD-ANS-009", what, where=sample.origin, why=error.why, fix=error.fix) from error

    def from_model(self, sample: Sample, text: str, sizes: Sequence[Size]) -> str:
        """The model's output about the sample, in the sample's coordinates, converted without errors."""
        given = _family_of(sample, self.family)
        if given is None or given.family == self.family:
            return text
        return self._codec(sample, sizes, len(sizes)).reencode_leniently(text, given)

    def _codec(self, sample: Sample, sizes: Sequence[Size], shown: int) -> BoxCodec:
        """The model's codec after ``shown`` of the images."""
        if not self.pixels:
            return BoxCodec(self.family)
        number = sample.extra.get(BOX_IMAGE, max(shown - 1, 0))
        if not isinstance(number, int) or not 0 <= number < len(sizes):
            raise KdkitError(
                "KD-ANS-010",
                f"sample '{sample.id}': {BOX_IMAGE} is {number!r}",
                where=sample.origin,
                why=f"the sample has {len(sizes)} images",
                fix=f"set {BOX_IMAGE} to the number of an image, from 0",
            )
        return BoxCodec(self.family, sizes[number])


def declared(value: object, where: str) -> BoxCodec:
    """The codec of a sample's declared family.

    Raises:
        KdkitError: an unknown family, or one whose units depend on the model.
    """
    known = tuple(name for name, (_, units) in FAMILIES.items() if units != "pixels")
    if value not in known:
        raise KdkitError(
            "KD-ANS-011",
            f"{BOX_FAMILY} is {value!r}",
            where=where,
            why=f"boxes of samples are in the notation of {', '.join(known)}",
            fix=did_you_mean(str(value), known),
        )
    return BoxCodec(str(value))


def _family_of(sample: Sample, own: str) -> BoxCodec | None:
    """None if there is nothing to convert."""
    value = sample.extra.get(BOX_FAMILY)
    if value is None or own == AS_IS:
        return None
    return declared(value, f"{sample.origin} ('{sample.id}')")
