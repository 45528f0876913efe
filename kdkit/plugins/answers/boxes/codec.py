"""Boxes in the notation and units of each model family, to and from fractions of the image.

Canonical boxes are fractions of width and height in [0, 1], top left corner first. Families scale each axis separately:

========== ======================================================================== ==========================
family     notation                                                                 units
========== ======================================================================== ==========================
qwen-vl    ``<ref>label</ref><box>(x1,y1),(x2,y2)</box>``                           0 to 1000
qwen2-vl   ``<|object_ref_start|>`` ... ``<|box_start|>(x1,y1),(x2,y2)<|box_end|>`` 0 to 1000
qwen2.5-vl ``[{"bbox_2d": [x1, y1, x2, y2], "label": "..."}]``                      pixels of the resized image
qwen3-vl   the same                                                                 0 to 1000
internvl   ``<ref>label</ref><box>[[x1, y1, x2, y2]]</box>``                        0 to 1000
json       ``[{"box": [x1, y1, x2, y2], "label": "..."}]``                          fractions, four decimals
========== ======================================================================== ==========================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.plugins.answers.boxes.notation import NOTATIONS, Piece, Written, foreign_boxes

FAMILIES = {
    "qwen-vl": ("tags", "thousand"),
    "qwen2-vl": ("tokens", "thousand"),
    "qwen2.5-vl": ("bbox_2d", "pixels"),
    "qwen3-vl": ("bbox_2d", "thousand"),
    "internvl": ("lists", "thousand"),
    "json": ("box", "fractions"),
}
"""Family -> (notation, units)."""
FIX = "correct the box, or declare the family that wrote it (box_family)"


@dataclass(frozen=True)
class Box:
    """A box in fractions of the image, each in [0, 1], with x1 < x2 and y1 < y2; ``label`` may be empty."""

    x1: float
    y1: float
    x2: float
    y2: float
    label: str = ""

    @property
    def corners(self) -> tuple[float, float, float, float]:
        return self.x1, self.y1, self.x2, self.y2


class BoxCodec:
    """Reads and writes the boxes of one family.

    Args:
        family: one of :data:`FAMILIES`.
        size: (width, height) in pixels of the image as the model sees it, after its processor resized it; for
            ``qwen2.5-vl`` alone.

    Raises:
        KdkitError: an unknown family; a size that is missing, not positive, or not needed.
    """

    def __init__(self, family: str, size: tuple[int, int] | None = None) -> None:
        if family not in FAMILIES:
            raise KdkitError(
                "KD-ANS-001", f"there is no family of boxes '{family}'", fix=did_you_mean(family, tuple(FAMILIES))
            )
        notation, units = FAMILIES[family]
        if (size is None) == (units == "pixels"):
            what = "needs the size of the resized image" if size is None else "does not depend on the image's size"
            raise KdkitError(
                "KD-ANS-002",
                f"'{family}' {what}",
                fix="size=(width, height) is for 'qwen2.5-vl', whose boxes are pixels",
            )
        if size is not None and min(size) < 1:
            raise KdkitError(
                "KD-ANS-003", f"the image size is {size[0]} x {size[1]}", fix="give positive numbers of pixels"
            )
        self.family, self.size = family, size
        self._notation = NOTATIONS[notation]
        self._scale = {"thousand": (1000.0, 1000.0), "fractions": (1.0, 1.0)}.get(units) or (
            float(size[0]),  # type: ignore[index]  # pixels always have a size
            float(size[1]),  # type: ignore[index]
        )
        self._decimals = 4 if units == "fractions" else 0

    def parse(self, text: str, where: str = "") -> list[Box]:
        """The boxes of a text, in order.

        Args:
            where: origin of the text, for error messages.

        Raises:
            KdkitError: boxes of another family, outside of the image, or without area.
        """
        return [box for piece in self._pieces(text, where) for box in self._boxes(piece, where)]

    def emit(self, boxes: Sequence[Box]) -> str:
        """The boxes in this family's notation; corners move by at most half a unit.

        Raises:
            KdkitError: a box outside of the image, without area, or too thin for the units.
        """
        written = []
        for box in boxes:
            _check(box, f"{box.corners}", "fractions lie in 0 to 1", "")
            x1, y1, x2, y2 = numbers = self._numbers(box)
            if x1 == x2 or y1 == y2:
                what = f"the box {box.corners} is thinner than a unit of '{self.family}'"
                raise KdkitError("KD-ANS-004", what, fix="use a family of finer units, such as json")
            written.append(Written(numbers, box.label))
        return self._notation.write(written)

    def reencode(self, text: str, to: BoxCodec, where: str = "") -> str:
        """``text`` with its boxes in the notation of ``to``.

        Raises:
            KdkitError: as :meth:`parse`.
        """
        made, last = "", 0
        for piece in self._pieces(text, where):
            made += text[last : piece.start] + to.emit(self._boxes(piece, where))
            last = piece.end
        return made + text[last:]

    def reencode_leniently(self, text: str, to: BoxCodec) -> str:
        """Like :meth:`reencode` for a model's output, without errors.

        Boxes outside of the image, inverted or without area are converted like any other; malformed boxes stay.
        """
        made, last = "", 0
        for piece in self._notation.read(text):
            boxes = [_fractions(written, self._scale) for written in piece.boxes]
            if all(math.isfinite(value) for box in boxes for value in box.corners):
                written = [Written(to._numbers(box), box.label) for box in boxes]
                made += text[last : piece.start] + to._notation.write(written)
                last = piece.end
        return made + text[last:]

    def _pieces(self, text: str, where: str) -> list[Piece]:
        pieces = self._notation.read(text)
        rest = list(text)
        for piece in pieces:
            rest[piece.start : piece.end] = " " * (piece.end - piece.start)
        stray = foreign_boxes("".join(rest))
        if stray:
            owners = [name for name, (notation, _) in FAMILIES.items() if notation == stray.notation]
            whose = f"as {' and '.join(owners)} write{'s' * (len(owners) == 1)} them" if owners else "in no known way"
            own = "it needs four numbers, as this family writes them"
            raise KdkitError(
                "KD-ANS-005",
                f"'{stray.text}' is not a box of '{self.family}'",
                where=where,
                why=own if self.family in owners else f"boxes here are written {whose}",
                fix="declare the family that wrote them; BoxCodec(...).reencode(text, to) converts",
            )
        return pieces

    def _boxes(self, piece: Piece, where: str) -> list[Box]:
        found = []
        for written in piece.boxes:
            box = _fractions(written, self._scale)
            (x, y), (x1, y1, x2, y2) = self._scale, written.numbers
            limits = f"'{self.family}' has {x:g} x {y:g} units; a family in other units wrote this?"
            _check(box, f"({x1:g}, {y1:g}), ({x2:g}, {y2:g})", limits, where)
            found.append(box)
        return found

    def _numbers(self, box: Box) -> tuple[float, float, float, float]:
        x, y = self._scale
        x1, y1, x2, y2 = box.corners
        n = self._decimals
        return round(x1 * x, n), round(y1 * y, n), round(x2 * x, n), round(y2 * y, n)


def _fractions(written: Written, scale: tuple[float, float]) -> Box:
    (x, y), (x1, y1, x2, y2) = scale, written.numbers
    return Box(x1 / x, y1 / y, x2 / x, y2 / y, written.label)


def _check(box: Box, shown: str, why: str, where: str) -> None:
    if not all(math.isfinite(value) and 0 <= value <= 1 for value in box.corners):
        raise KdkitError("KD-ANS-006", f"the box {shown} is outside of the image", where=where, why=why, fix=FIX)
    if box.x1 >= box.x2 or box.y1 >= box.y2:
        raise KdkitError(
            "KD-ANS-007",
            f"the box {shown} has no area",
            where=where,
            why="the top left corner comes first, the bottom right second",
            fix=FIX,
        )
