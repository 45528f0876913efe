"""What every RoPE variant promises: position ids for a sequence of text and image tokens."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from kdkit.core.catalogue import Family
from kdkit.testing.contract import Contract

Grids = list[tuple[int, int, int]]


class RopeContract(Contract):
    """Subclass with ``name``; override :meth:`sequence` where an image has another number of tokens than t h w."""

    family: ClassVar[Family] = "rope"

    def sequence(self) -> tuple[Tensor, Grids]:
        """``modality`` (S,) and ``grids``: text, an image of 2 x 3 tokens, text, one of 4 x 2, text."""
        grids = [(1, 2, 3), (1, 4, 2)]
        parts = [(0, 4), (1, 6), (0, 3), (1, 8), (0, 5)]
        return torch.cat([torch.full((length,), kind) for kind, length in parts]), grids

    def test_shape(self) -> None:
        """Positions are (axes, S), finite, with the same number of axes for every sequence."""
        modality, grids = self.sequence()
        positions, text = self._positions(modality, grids), self._positions(torch.zeros(7, dtype=modality.dtype), [])
        for found, length in ((positions, len(modality)), (text, 7)):
            assert found.ndim == 2, f"expected (axes, S), got {tuple(found.shape)}"
            assert found.shape[1] == length, f"expected (axes, {length}), got {tuple(found.shape)}"
            assert found.isfinite().all(), "expected finite positions, got NaN or infinity"
        assert len(positions) == len(text), f"{len(positions)} axes with images, {len(text)} without"

    def test_text_is_one_dimensional(self) -> None:
        """A sequence of text alone has the positions 0, 1, 2, ... on every axis, as the language model knows it."""
        text = torch.zeros(9, dtype=torch.int64)
        found, wanted = self._positions(text, []), torch.arange(9)
        assert bool((found == wanted).all()), f"expected 0 to 8 on every axis, got {found.tolist()}"

    def test_what_follows_changes_nothing(self) -> None:
        """Text put at the end leaves the positions before it: an answer is generated token by token."""
        modality, grids = self.sequence()
        longer = torch.cat([modality, torch.zeros(5, dtype=modality.dtype)])
        before, after = self._positions(modality, grids), self._positions(longer, grids)[:, : len(modality)]
        assert torch.equal(before, after), "positions change when text follows; a cache of keys would be wrong"

    def test_image_tokens_are_told_apart(self) -> None:
        """No two tokens of an image have the same position on all axes."""
        modality, grids = self.sequence()
        found = self._positions(modality, grids)[:, modality == 1]
        start = 0
        for t, h, w in grids:
            columns = found[:, start : start + t * h * w]
            start += t * h * w
            distinct = len(torch.unique(columns, dim=1).T)
            assert distinct == columns.shape[1], f"{columns.shape[1]} tokens of a {h} x {w} image, {distinct} positions"

    def test_deterministic(self) -> None:
        """The same sequence gives the same positions, from another object too."""
        modality, grids = self.sequence()
        assert torch.equal(self._positions(modality, grids), self._positions(modality, grids)), "positions differ"

    def _positions(self, modality: Tensor, grids: Grids) -> Tensor:
        found = self.make().positions(modality, grids)
        assert isinstance(found, Tensor), f"expected a tensor, got {type(found).__name__}"
        return found
