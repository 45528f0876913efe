"""What every RoPE variant promises: positions for tokens of text and images, and frequencies for their axes."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from kdkit.core.contracts import RopeVariant
from kdkit.core.plugin_system.catalogue import Family
from kdkit.testing.contract import Contract, expected_error, skip
from kdkit.testing.tensors import assert_near

Grids = list[tuple[int, int, int]]
INVERSE = 10_000.0 ** (-torch.arange(24) / 24)
"""(F,) the frequencies of 1-D RoPE for heads of width 48."""


class RopeContract(Contract):
    """Subclass with ``name``."""

    family: ClassVar[Family] = "rope"

    def sequence(self) -> tuple[Tensor, Grids]:
        """``modality`` (S,) and ``grids``: for a language tower text, an image of 2 x 3 tokens, text, one of 4 x 2
        and text; for a vision tower one image of 4 x 2."""
        if self._variant().tower == "vision":
            return torch.ones(8, dtype=torch.int64), [(1, 4, 2)]
        grids = [(1, 2, 3), (1, 4, 2)]
        parts = [(0, 4), (1, 6), (0, 3), (1, 8), (0, 5)]
        return torch.cat([torch.full((length,), kind) for kind, length in parts]), grids

    def test_shape(self) -> None:
        """Positions are (axes, S), int64 or float64, finite, and the same when computed again."""
        modality, grids = self.sequence()
        found = self._positions(modality, grids)
        assert found.ndim == 2, f"expected (axes, S), got {tuple(found.shape)}"
        assert found.shape[1] == len(modality), f"expected (axes, {len(modality)}), got {tuple(found.shape)}"
        assert found.dtype in (torch.int64, torch.float64), f"expected int64 or float64, got {found.dtype}"
        assert found.isfinite().all(), "expected finite positions, got NaN or infinity"
        assert torch.equal(self._positions(modality, grids), found), "positions differ when computed again"

    def test_text_is_one_dimensional(self) -> None:
        """Language tower: text alone has the positions 0, 1, 2, ... on every axis, as the language model knows it."""
        self._needs_language()
        found, wanted = self._positions(torch.zeros(9, dtype=torch.int64), []), torch.arange(9)
        assert bool((found == wanted).all()), f"expected 0 to 8 on every axis, got {found.tolist()}"
        axes = len(self._positions(*self.sequence()))
        assert len(found) == axes, f"expected {axes} axes as with images, got {len(found)}"

    def test_text_before_shifts(self) -> None:
        """Language tower: text put before shifts all positions alike, so nothing that is relative changes."""
        self._needs_language()
        modality, grids = self.sequence()
        longer = torch.cat([torch.zeros(5, dtype=modality.dtype), modality])
        found = self._positions(longer, grids)[:, 5:] - self._positions(modality, grids)
        assert_near("shift by 5 text tokens before", found.double(), torch.full_like(found, 5).double(), 1e-9)

    def test_text_after_changes_nothing(self) -> None:
        """Language tower: text put at the end leaves the positions before it; answers are made token by token."""
        self._needs_language()
        modality, grids = self.sequence()
        longer = torch.cat([modality, torch.zeros(5, dtype=modality.dtype)])
        before, after = self._positions(modality, grids), self._positions(longer, grids)[:, : len(modality)]
        assert torch.equal(before, after), "positions change when text follows; a cache of keys would be wrong"

    def test_image_tokens_are_told_apart(self) -> None:
        """No two tokens of an image have the same position on all axes."""
        modality, grids = self.sequence()
        columns = self._positions(modality, grids)[:, modality == 1]
        sizes = [t * h * w for t, h, w in grids]
        for (_, h, w), part in zip(grids, torch.split(columns, sizes, dim=1), strict=True):
            distinct = torch.unique(part, dim=1).shape[1]
            assert distinct == part.shape[1], f"{h} x {w} image: expected {part.shape[1]} positions, got {distinct}"

    def test_wrong_grids(self) -> None:
        """Image tokens that are not those of the grids are an error."""
        modality, grids = self.sequence()
        wrong = [*grids[:-1], (1, 9, 9)]
        expected_error(lambda: self._positions(modality, wrong), "KdkitError for grids that do not fit", "")

    def test_frequencies(self) -> None:
        """Frequencies are float32, finite, (axes, F) or (axes, heads, F); a language tower's add up to 1-D RoPE's."""
        axes, planes = len(self._positions(*self.sequence())), len(INVERSE)
        found = self._variant().frequencies(INVERSE, 2).detach()
        shapes = ((axes, planes), (axes, 2, planes))
        assert found.shape in shapes, f"expected {shapes[0]} or {shapes[1]}, got {tuple(found.shape)}"
        assert found.dtype == torch.float32, f"expected float32, got {found.dtype}"
        assert found.isfinite().all(), "expected finite frequencies, got NaN or infinity"
        if self._variant().tower == "language":
            total = found.sum(0)
            assert_near("sum over the axes", total, INVERSE.expand_as(total), 1e-6, fix="text would turn otherwise")

    def _variant(self) -> RopeVariant:
        variant: RopeVariant = self.make()
        known = variant.tower in ("language", "vision")
        assert known, f"expected tower to be 'language' or 'vision', got {variant.tower!r}"
        return variant

    def _needs_language(self) -> None:
        if self._variant().tower == "vision":
            raise skip("it belongs to a vision tower, which sees no text")

    def _positions(self, modality: Tensor, grids: Grids) -> Tensor:
        found = self._variant().positions(modality, grids)
        assert isinstance(found, Tensor), f"expected a tensor, got {type(found).__name__}"
        return found
