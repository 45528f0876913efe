"""Position designs: positions of an image's tokens on the axes (time, row, column), and of the text after it.

Text positions are equal on all axes and increase by 1. An image has (T, H, W) tokens; ``here`` is the position that a
text token would have in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdkit.core.base.errors import KdkitError

Grid = tuple[int, int, int]
FIX = "pass the grids of the processor that made the image tokens, in the order of the images"


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens ``start`` to ``stop`` (excluded): text, or the image of ``grid``."""

    start: int
    stop: int
    grid: Grid | None = None


def spans(modality: Tensor, grids: Sequence[Grid]) -> Iterator[Span]:
    """Runs of text and images in order; grids separate adjacent images.

    Args:
        modality: (S,) 0 for text and 1 for image tokens.
        grids: (t, h, w) of each image.

    Raises:
        KdkitError: image tokens that do not match ``grids``, or an image with text inside.
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
                    fix=FIX,
                )
            yield Span(place, stop, grid)
            place = stop


def _check(kinds: Sequence[int], grids: Sequence[Grid]) -> None:
    wrong = [grid for grid in grids if min(grid) < 1]
    if wrong:
        raise KdkitError(
            "KD-ROPE-006", f"not the grid of an image: {wrong[0]}", why="each side has at least one token", fix=FIX
        )
    unknown = set(kinds) - {0, 1}
    if unknown:
        raise KdkitError("KD-ROPE-007", f"the modality of a token is {sorted(unknown)[0]}", fix="0 is text, 1 is image")
    expected, found = sum(t * h * w for t, h, w in grids), sum(kinds)
    if expected != found:
        raise KdkitError(
            "KD-ROPE-008",
            f"{len(grids)} images have {expected} tokens, the sequence has {found} image tokens",
            why=f"grids (t, h, w): {grids}",
            fix=FIX,
        )


@dataclass(frozen=True, slots=True)
class Before:
    """State before an image: ``here``, the number of tokens before it, and whether the last one is text."""

    here: int
    tokens: int
    text: bool


Design = Callable[[Before, Grid], tuple[Tensor, int]]
"""(state before, (T, H, W)) -> positions (3, T * H * W), and the position of a text token after the image."""


def walk(design: Design, modality: Tensor, grids: Sequence[Grid]) -> Tensor:
    """Positions (3, S) of a sequence: float64 if the design gives fractions, else int64."""
    parts, here, text = [], 0, False
    for span in spans(modality, grids):
        if span.grid is None:
            count = span.stop - span.start
            parts.append((here + torch.arange(count)).expand(3, -1))
            here += count
        else:
            part, here = design(Before(here, span.start, text), span.grid)
            parts.append(part)
        text = span.grid is None
    return torch.cat(parts, dim=1) if parts else torch.zeros(3, 0, dtype=torch.int64)


def lattice(grid: Grid) -> Tensor:
    """(3, T * H * W) int64: time, row and column of every token, from 0, row by row.

    Example:
        >>> lattice((1, 2, 2)).tolist()
        [[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1]]
    """
    return torch.cartesian_prod(*(torch.arange(side) for side in grid)).reshape(-1, 3).T


def reading_order(before: Before, grid: Grid) -> tuple[Tensor, int]:
    """1-D RoPE: tokens at ``here``, ``here + 1``, ...; text continues after the last one."""
    count = grid[0] * grid[1] * grid[2]
    return (before.here + torch.arange(count)).expand(3, -1), before.here + count


def lattice_at_text(before: Before, grid: Grid) -> tuple[Tensor, int]:
    """M-RoPE (Qwen2-VL, arXiv 2409.12191): ``here`` + (t, r, c); text continues at the maximum + 1."""
    return before.here + lattice(grid), before.here + max(grid)


def lattice_with_gap(gap: int) -> Design:
    """ClinKD's released code (``get_rope_index`` at 2d78638, gap 2): M-RoPE, but an image starts at the last text
    position + ``gap``, and text continues at the maximum + ``gap``.

    An image at the very start is at 0, and one that touches another is at the other's maximum + ``gap``; the
    released code raises in both cases.
    """

    def place(before: Before, grid: Grid) -> tuple[Tensor, int]:
        start = before.here + (gap - 1 if before.text else 0)
        return start + lattice(grid), start + max(grid) - 1 + gap

    return place


def diagonal(delta: int) -> Design:
    """VideoRoPE (arXiv 2502.05173; released code at 7712ca3): with ``t = here + delta * time``, a token is at
    ``(t, t + r - (H - 1) // 2, t + c - (W - 1) // 2)``; text continues at the last ``t`` + 1."""

    def place(before: Before, grid: Grid) -> tuple[Tensor, int]:
        time, row, column = lattice(grid)
        t = before.here + delta * time
        return torch.stack([t, t + row - (grid[1] - 1) // 2, t + column - (grid[2] - 1) // 2]), int(t[-1]) + 1

    return place


def centered_lattice(alpha: tuple[float, float, float]) -> Design:
    """ClinKD eq. 1-4, which is RoPE-TV (Jianlin Su, 2024): a lattice of step ``alpha`` per axis, centered on the
    block of T * H * W positions that 1-D RoPE would give the image.

    Eq. 3 asks for equal gaps before and after the image. With 1-based text positions and l tokens before, row r of
    n is at ``l + (N + 1) / 2 + alpha * (r - (n + 1) / 2)``, N = T * H * W (the paper has T = 1 and no time axis:
    there a still image is at the block's center). So the gap is ``(N + 1 - alpha * (n - 1)) / 2``. Positions
    here count from 0, which changes no difference. Text is always at its index, so generation needs no correction.
    """

    def place(before: Before, grid: Grid) -> tuple[Tensor, int]:
        count = grid[0] * grid[1] * grid[2]
        center = before.tokens + (count - 1) / 2
        step = torch.tensor(alpha, dtype=torch.float64)[:, None]
        middle = (torch.tensor(grid, dtype=torch.float64)[:, None] - 1) / 2
        return center + step * (lattice(grid) - middle), before.here + count

    return place
