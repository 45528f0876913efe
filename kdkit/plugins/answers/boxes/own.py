"""A model's own coordinates: texts as the data has them, written for a model, and read again.

A sample whose texts hold boxes says in ``extra["box_family"]`` which family wrote them (:data:`FAMILIES` of the
codec); one that does not say it has no boxes, only text. Where a family's units are pixels of the resized image, a box
is of the last image that is shown before it, or of the one whose number, from 0, is ``extra["box_image"]``.
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
        KdkitError: another one.
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

    def told(self, least: int, most: int, unit: int) -> str:
        """What decides how the same box is written, for a model's identity: the family, and where its units are pixels
        how images are resized, between two numbers of pixels to multiples of ``unit``."""
        limits = f" of images of {least} to {most} pixels, sides by {unit}"
        return self.family + limits * self.pixels

    def question(self, sample: Sample, sizes: Sequence[Size]) -> Sample:
        """The sample with its messages in the model's coordinates.

        Nothing in them is refused: they may hold what a model said, and sources check them.

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
                parts.append(given.reencode_said(part, self._codec(sample, sizes, shown)))
            messages.append({**message, "content": IMAGE_MARK.join(parts)} if "content" in message else message)
        return replace(sample, extra={**sample.extra, "messages": messages})

    def answer(self, sample: Sample, sizes: Sequence[Size]) -> str:
        """The sample's text in the model's coordinates.

        Raises:
            KdkitError: naming the sample, for boxes of another family than the sample says, or outside of the image.
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

    def said(self, sample: Sample, text: str, sizes: Sequence[Size]) -> str:
        """What the model said about the sample, in the sample's coordinates; nothing is refused."""
        given = _family_of(sample, self.family)
        if given is None or given.family == self.family:
            return text
        return self._codec(sample, sizes, len(sizes)).reencode_said(text, given)

    def _codec(self, sample: Sample, sizes: Sequence[Size], shown: int) -> BoxCodec:
        """Its codec after ``shown`` of the images."""
        if not self.pixels:
            return BoxCodec(self.family)
        number = sample.extra.get(BOX_IMAGE, max(shown - 1, 0))
        if not isinstance(number, int) or not 0 <= number < len(sizes):
            raise KdkitError(
                "KD-ANS-010",
                f"sample '{sample.id}': {BOX_IMAGE} is {number!r}",
                where=sample.origin,
                why=f"{len(sizes)} images",
            )
        return BoxCodec(self.family, sizes[number])


def declared(value: object, where: str) -> BoxCodec:
    """The codec of the family that a sample says its texts are of.

    Raises:
        KdkitError: no family, or one whose units depend on the model that sees the image.
    """
    known = tuple(name for name, (_, units) in FAMILIES.items() if units != "pixels")
    if value not in known:
        raise KdkitError(
            "KD-ANS-011",
            f"{BOX_FAMILY} is {value!r}",
            where=where,
            why=f"boxes of samples are written as by {', '.join(known)}",
            fix=did_you_mean(str(value), known),
        )
    return BoxCodec(str(value))


def _family_of(sample: Sample, own: str) -> BoxCodec | None:
    """None where there is nothing to translate."""
    value = sample.extra.get(BOX_FAMILY)
    if value is None or own == AS_IS:
        return None
    return declared(value, f"{sample.origin} ('{sample.id}')")
