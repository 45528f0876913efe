"""RoPE variants of the language tower: combinations of a position design and a frequency layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.plugins.rope.designs import (
    Design,
    Grid,
    centered_lattice,
    diagonal,
    lattice_at_text,
    lattice_with_gap,
    reading_order,
    walk,
)
from kdkit.plugins.rope.layouts import Layout, find_layout, interleaved, sections


@dataclass(frozen=True)
class LanguageRope:
    """Fulfils ``contracts.RopeVariant``, with the axes time, row and column.

    Args:
        design: positions of an image's tokens.
        layout: which axis turns which rotary plane.
        section: planes of each axis, for the layouts ``sections`` and ``interleaved``.
        dtype: of the positions, whatever the sequence.
    """

    design: Design
    layout: Layout
    section: tuple[int, ...] | None = None
    dtype: torch.dtype = torch.int64

    @property
    def tower(self) -> Literal["language", "vision"]:
        return "language"

    @property
    def trainable(self) -> bool:
        return False

    def positions(self, modality: Tensor, grids: Sequence[Grid]) -> Tensor:
        """(3, S); see the contract."""
        return walk(self.design, modality, grids).to(self.dtype)

    def frequencies(self, inverse: Tensor, heads: int = 1) -> Tensor:  # noqa: ARG002  (heads do not differ)
        """(F,) -> (3, F): every plane rotates with one axis."""
        axis = self.layout(len(inverse), self.section)
        return torch.where(axis == torch.arange(3)[:, None], inverse.float(), 0.0)


def _make(design: Design, layout: str, section: Sequence[int] | None, dtype: torch.dtype = torch.int64) -> LanguageRope:
    chosen = find_layout(layout)
    if section is not None and chosen not in (sections, interleaved):
        raise KdkitError(
            "KD-ROPE-009",
            f"the layout '{layout}' has no sections",
            fix="remove 'section', or set 'layout: sections' or 'layout: interleaved'",
        )
    return LanguageRope(design, chosen, None if section is None else tuple(section), dtype)


def rope_1d(*, layout: str = "sections", section: Sequence[int] | None = None) -> LanguageRope:
    """Every token at its index on all axes, whatever the layout."""
    return _make(reading_order, layout, section)


def rope_2d(*, layout: str = "axial", section: Sequence[int] | None = None) -> LanguageRope:
    """M-RoPE's rows and columns without its time axis (arXiv 2403.13298, section 3.1, for a tower with text)."""
    return _make(lattice_at_text, layout, section)


def mrope(*, layout: str = "sections", section: Sequence[int] | None = None) -> LanguageRope:
    """M-RoPE of Qwen2-VL and Qwen2.5-VL."""
    return _make(lattice_at_text, layout, section)


def mrope_interleaved(*, layout: str = "interleaved", section: Sequence[int] | None = None) -> LanguageRope:
    """M-RoPE of Qwen3-VL."""
    return _make(lattice_at_text, layout, section)


def videorope(*, delta: int = 2, layout: str = "low-time", section: Sequence[int] | None = None) -> LanguageRope:
    """VideoRoPE; ``delta`` is the step between frames, in text positions."""
    if delta < 1:
        raise KdkitError("KD-ROPE-010", f"delta is {delta}", fix="give a whole number of text positions, at least 1")
    return _make(diagonal(delta), layout, section)


def clinkd_repo(*, gap: int = 2, layout: str = "sections", section: Sequence[int] | None = None) -> LanguageRope:
    """ClinKD's released code of MCG-RoPE; ``gap=1`` is M-RoPE."""
    if gap < 1:
        raise KdkitError("KD-ROPE-011", f"gap is {gap}", fix="give a whole number of positions, at least 1")
    return _make(lattice_with_gap(gap), layout, section)


def rope_tv(
    *,
    alpha: float | Sequence[float] = 1.0,
    layout: str = "sections",
    section: Sequence[int] | None = None,
) -> LanguageRope:
    """ClinKD's MCG-RoPE as in the paper (arXiv 2502.05928, eq. 1-11), which is RoPE-TV.

    Args:
        alpha: distance between neighboring rows and columns, at least 0; one number, or three for time, rows and
            columns. Beyond (N - 1) / (n - 1) for a side of n in an image of N tokens, the image overlaps the text.
    """
    steps = tuple(float(a) for a in alpha) if isinstance(alpha, Sequence) else (float(alpha),) * 3
    if len(steps) != 3 or not all(math.isfinite(step) and step >= 0 for step in steps):
        raise KdkitError(
            "KD-ROPE-012", f"alpha is {alpha}", fix="give a number of at least 0, or three for time, rows and columns"
        )
    return _make(centered_lattice(steps), layout, section, torch.float64)
