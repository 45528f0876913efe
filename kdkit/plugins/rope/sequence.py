"""Cutting a sequence into runs of text and images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from kdkit.core.base.errors import KdkitError

Grid = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens ``start`` to ``stop`` (excluded): text, or the image of ``grid``."""

    start: int
    stop: int
    grid: Grid | None = None


def spans(modality: Tensor, grids: Sequence[Grid]) -> Iterator[Span]:
    """The runs of a sequence, in order; images are told apart by the sizes of their grids, so they may touch.

    Args:
        modality: (S,) 0 for text and 1 for image tokens.
        grids: (t, h, w) of each image.

    Raises:
        KdkitError: image tokens that are not those of ``grids``, or an image with text inside.
    """
    kinds, grids, place = modality.tolist(), list(grids), 0
    _check(kinds, grids)
    for grid in (*grids, None):
        text = place
        while place < len(kinds) and not kinds[place]:
            place += 1
        if place > text:
            yield Span(text, place)
        if grid is not None:
            stop = place + grid[0] * grid[1] * grid[2]
            if not all(kinds[place:stop]):
                raise KdkitError(
                    "KD-ROPE-005",
                    f"an image of {grid[0]} x {grid[1]} x {grid[2]} tokens has text between them",
                    why=f"the run of image tokens at {place} ends before {stop}",
                )
            yield Span(place, stop, grid)
            place = stop


def _check(kinds: Sequence[int], grids: Sequence[Grid]) -> None:
    wrong = [grid for grid in grids if min(grid) < 1]
    if wrong:
        raise KdkitError("KD-ROPE-006", f"not the grid of an image: {wrong[0]}", why="each side has at least one token")
    unknown = set(kinds) - {0, 1}
    if unknown:
        raise KdkitError("KD-ROPE-007", f"a token is text (0) or image (1), not {sorted(unknown)[0]}")
    expected, found = sum(t * h * w for t, h, w in grids), sum(kinds)
    if expected != found:
        raise KdkitError(
            "KD-ROPE-008",
            f"{len(grids)} images have {expected} tokens, the sequence has {found} image tokens",
            why=f"grids (t, h, w): {grids}",
        )
