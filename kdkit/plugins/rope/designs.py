"""Position designs: where an image's tokens are, on the axes (time, row, column), and where text goes on after it.

Text counts on, equal on all axes. Notation: an image of (T, H, W) tokens; ``here`` is the position that a text
token would have in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdkit.plugins.rope.sequence import Grid, spans


@dataclass(frozen=True, slots=True)
class Before:
    """What an image finds: ``here``, the number of tokens before it, and whether the last one of them is text."""

    here: int
    tokens: int
    text: bool


Design = Callable[[Before, Grid], tuple[Tensor, int]]
"""(what is before, (T, H, W)) -> positions (3, T * H * W), and the position of a text token after the image."""


def walk(design: Design, modality: Tensor, grids: Sequence[Grid]) -> Tensor:
    """Positions (3, S) of a sequence; float64 when the design gives broken numbers, else int64."""
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
    """(3, T * H * W) int64: time, row and column of every token, from 0, row by row."""
    return torch.cartesian_prod(*(torch.arange(side) for side in grid)).reshape(-1, 3).T


def reading_order(before: Before, grid: Grid) -> tuple[Tensor, int]:
    """1-D RoPE: tokens at ``here``, ``here + 1``, ...; text goes on after the last of them."""
    count = grid[0] * grid[1] * grid[2]
    return (before.here + torch.arange(count)).expand(3, -1), before.here + count


def lattice_at_text(before: Before, grid: Grid) -> tuple[Tensor, int]:
    """M-RoPE (Qwen2-VL, arXiv 2409.12191): ``here`` + (t, r, c); text goes on at the maximum + 1."""
    return before.here + lattice(grid), before.here + max(grid)


def lattice_with_gap(gap: int) -> Design:
    """ClinKD's released code (``get_rope_index`` at 2d78638, gap 2): M-RoPE, but an image starts at the last text
    position + ``gap``, and text goes on at the maximum + ``gap``.

    An image at the very start is at 0, and one that touches another is at the other's maximum + ``gap``; the
    released code raises in both cases.
    """

    def place(before: Before, grid: Grid) -> tuple[Tensor, int]:
        start = before.here + (gap - 1 if before.text else 0)
        return start + lattice(grid), start + max(grid) - 1 + gap

    return place


def diagonal(delta: int) -> Design:
    """VideoRoPE (arXiv 2502.05173; released code at 7712ca3): with ``t = here + delta * time``, a token is at
    ``(t, t + r - (H - 1) // 2, t + c - (W - 1) // 2)``; text goes on at the last ``t`` + 1."""

    def place(before: Before, grid: Grid) -> tuple[Tensor, int]:
        time, row, column = lattice(grid)
        t = before.here + delta * time
        return torch.stack([t, t + row - (grid[1] - 1) // 2, t + column - (grid[2] - 1) // 2]), int(t[-1]) + 1

    return place


def centred_lattice(alpha: tuple[float, float, float]) -> Design:
    """ClinKD eq. 1-4, which is RoPE-TV (Jianlin Su, 2024): a lattice of step ``alpha`` per axis, centered on the
    block of T * H * W places that 1-D RoPE would give the image.

    Eq. 3 asks for equal gaps before and after the image. With 1-based text positions and l tokens before, row r of
    n is at ``l + (N + 1) / 2 + alpha * (r - (n + 1) / 2)``, N = T * H * W (the paper has T = 1 and no time axis:
    there a still image is at the block's center). So the gap is ``(N + 1 - alpha * (n - 1)) / 2``. Here positions
    count from 0, which changes no difference. Text is always at its index: nothing to correct in generation.
    """

    def place(before: Before, grid: Grid) -> tuple[Tensor, int]:
        count = grid[0] * grid[1] * grid[2]
        center = before.tokens + (count - 1) / 2
        step = torch.tensor(alpha, dtype=torch.float64)[:, None]
        middle = (torch.tensor(grid, dtype=torch.float64)[:, None] - 1) / 2
        return center + step * (lattice(grid) - middle), before.here + count

    return place
