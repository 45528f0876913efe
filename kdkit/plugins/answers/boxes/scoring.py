"""Recall of boxes at an overlap of one half: by the published rule, and one to one."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

THRESHOLD = 0.5
Corners = tuple[float, float, float, float]
"""x and y of the top left corner, then of the bottom right one, in any unit."""

_TAGGED = re.compile(r"<box>(.*?)</box>|<\|?box_start\|?>(.*?)<\|?box_end\|?>", re.DOTALL)
_BBOX_2D = re.compile(r'"(?:bbox_2d|box)"\s*:\s*\[([^\[\]]*)\]')
_BARE = re.compile(r"\(\d+,\d+\),\(\d+,\d+\)")
_CORNER = r"\(\s*\d+(?:\.\d+)?\s*,\s*\d+(?:\.\d+)?\s*\)"
_BARE_SPACED = re.compile(rf"{_CORNER}\s*,\s*{_CORNER}")


@dataclass(frozen=True)
class Hits:
    """One answer's boxes against the reference's.

    Attributes:
        targets: boxes of the reference; ``found``: boxes of the answer.
        published: targets that any box of the published part hits; one box may hit several targets.
        strict: hits if every box hits one target at most.
        overlap: sum over targets of the best overlap with a box of the answer.
        alike: overlap summed over the best one-to-one pairs, divided by the larger number of boxes: in [0, 1], 1 for
            equal boxes.
    """

    targets: int
    found: int
    published: int
    strict: int
    overlap: float
    alike: float


def written_boxes(text: str, *, spaces: bool = False) -> list[Corners | None]:
    """The boxes of a text in order, in any family's notation, in the units of the text.

    ``<box>`` and ``<|box_start|>`` tags, else ``"bbox_2d"`` in JSON, else bare ``(1,2),(3,4)`` of whole numbers, like
    the published script. None for a malformed box, which hits nothing.

    Args:
        spaces: also read bare boxes with spaces or fractions.
    """
    closed = max(text.rfind(tag) + len(tag) for tag in ("</box>", "box_end>", "box_end|>"))
    inside = [
        first or second for first, second in _TAGGED.findall(text[:closed])
    ]  # keeps repeated <box> linear in time
    inside = inside or _BBOX_2D.findall(text) or (_BARE_SPACED if spaces else _BARE).findall(text)
    return [_corners(item) for item in inside]


def score_boxes(answer: str, reference: str, threshold: float = THRESHOLD, *, published: str | None = None) -> Hits:
    """Boxes of an answer against those of ``reference``, both in the same units; a hit overlaps *more* than
    ``threshold``.

    Args:
        published: the part of the answer that the published rule reads, by default all.
    """
    targets, found = written_boxes(reference, spaces=True), written_boxes(answer, spaces=True)
    table = [[overlap(target, box) for box in found] for target in targets]
    best = [max(row, default=0.0) for row in table]
    theirs = written_boxes(answer if published is None else published)
    return Hits(
        targets=len(targets),
        found=len(found),
        published=sum(any(overlap(target, box) > threshold for box in theirs) for target in targets),
        strict=round(_paired([[float(value > threshold) for value in row] for row in table])),
        overlap=sum(best),
        alike=_paired(table) / max(len(targets), len(found), 1),
    )


def overlap(first: Corners | None, second: Corners | None) -> float:
    """Intersection over union, in [0, 1]; 0 for boxes without area, inverted, or with NaN."""
    if first is None or second is None or not (_area(first) > 0 and _area(second) > 0):
        return 0.0
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (_area(first) + _area(second) - shared)


def _area(box: Corners) -> float:
    width, height = box[2] - box[0], box[3] - box[1]
    return width * height if width > 0 and height > 0 and math.isfinite(width * height) else 0.0


def _corners(text: str) -> Corners | None:
    """The first four numbers, separated by commas, brackets ignored, as in the published script."""
    try:
        numbers = [float(part) for part in text.replace("(", "").replace(")", "").split(",")]
    except ValueError:
        return None
    return (numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) >= 4 else None


def _paired(table: Sequence[Sequence[float]]) -> float:
    """The largest sum over (targets, boxes) with every target and every box in one pair at most."""
    if not table or not table[0]:
        return 0.0
    from scipy.optimize import linear_sum_assignment

    overlaps = np.array(table)
    return float(overlaps[linear_sum_assignment(overlaps, maximize=True)].sum())
