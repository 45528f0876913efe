"""Frequency layouts: the axis, time (0), row (1) or column (2), that rotates each rotary plane.

F planes, 0 the fastest. Every plane has one axis, so text, which is equal on all axes, rotates as in 1-D RoPE. Layouts
map F to (F,) int64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kdkit.core.base.errors import KdkitError, did_you_mean

TIME, ROW, COLUMN = range(3)


def sections(planes: int, section: Sequence[int] | None) -> Tensor:
    """M-RoPE: the fastest planes belong to time, then to rows, then to columns: (16, 24, 24) of 64.

    Args:
        section: planes of each axis; by default 2 : 3 : 3.

    Raises:
        KdkitError: sections that do not add up to ``planes``.

    Example:
        >>> sections(8, (2, 3, 3)).tolist()
        [0, 0, 1, 1, 1, 2, 2, 2]
    """
    if section is None:
        spatial = 3 * planes // 8
        section = (planes - 2 * spatial, spatial, spatial)
    if len(section) != 3 or min(section) < 0 or sum(section) != planes:
        raise KdkitError(
            "KD-ROPE-001",
            f"the sections {list(section)} do not share {planes} frequencies among time, row and column",
            fix=f"give three numbers that add up to {planes}, half the width of an attention head",
        )
    return torch.arange(3).repeat_interleave(torch.tensor(section))


def interleaved(planes: int, section: Sequence[int] | None = None) -> Tensor:
    """Qwen3-VL: time, row, column by turns; the remaining slowest planes belong to time: (24, 20, 20) of 64.

    Args:
        section: planes of time, rows and columns; rows and columns take every third plane from the fastest on.

    Raises:
        KdkitError: sections that do not add up to ``planes``, or that do not fit by turns.
    """
    turns = 5 * planes // 16
    time, rows, columns = (planes - 2 * turns, turns, turns) if section is None else tuple(section)
    index = torch.arange(planes)
    axis = torch.zeros_like(index)
    axis[(index % 3 == ROW) & (index < 3 * rows)] = ROW
    axis[(index % 3 == COLUMN) & (index < 3 * columns)] = COLUMN
    if [int((axis == number).sum()) for number in range(3)] != [time, rows, columns]:
        raise KdkitError(
            "KD-ROPE-420",
            f"the sections {[time, rows, columns]} cannot be interleaved on {planes} frequencies",
            fix="give three numbers that add up to the frequencies, rows and columns at most a third each",
        )
    return axis


def low_time(planes: int, _: Sequence[int] | None = None) -> Tensor:
    """VideoRoPE: row and column by turns; the slowest quarter belongs to time."""
    index = torch.arange(planes)
    return torch.where(index < planes - planes // 4, index % 2 + ROW, TIME)


def axial(planes: int, _: Sequence[int] | None = None) -> Tensor:
    """Row and column by turns, so that both have the same range of frequencies; none belongs to time."""
    return torch.arange(planes) % 2 + ROW


Layout = Callable[[int, Sequence[int] | None], Tensor]
LAYOUTS: dict[str, Layout] = {
    "sections": sections,
    "interleaved": interleaved,
    "low-time": low_time,
    "axial": axial,
}


def find_layout(name: str) -> Layout:
    """The layout called ``name``."""
    if name not in LAYOUTS:
        raise KdkitError("KD-ROPE-002", f"there is no frequency layout '{name}'", fix=did_you_mean(name, list(LAYOUTS)))
    return LAYOUTS[name]
