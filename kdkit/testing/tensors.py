"""Comparing tensors, with messages that say how far apart they are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

ROUNDING = 1e-4
"""What float32 may lose when rows are computed in another order: a share of the largest entry."""


def difference(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, as a share of the largest entry of ``wanted``."""
    if not wanted.numel():
        return 0.0
    found, wanted = found.detach().double(), wanted.detach().double()
    scale = wanted.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    return float((found - wanted).abs().max() / scale)


def assert_near(what: str, found: Tensor, wanted: Tensor, tolerance: float = ROUNDING, *, fix: str = "") -> None:
    """``found`` has the shape of ``wanted`` and differs by no more than ``tolerance`` of its largest entry."""
    shapes = tuple(found.shape), tuple(wanted.shape)
    assert shapes[0] == shapes[1], f"{what}: expected shape {shapes[1]}, got {shapes[0]}"
    apart = difference(found, wanted)
    advice = f"; {fix}" if fix else ""
    assert apart <= tolerance, f"{what}: expected the same within {tolerance:g}, got {apart:.2g} apart{advice}"


def assert_all_near(
    what: str,
    found: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    tolerance: float = ROUNDING,
    *,
    fix: str = "",
) -> None:
    """As :func:`assert_near`, by name."""
    assert set(found) == set(wanted), f"{what}: expected {sorted(wanted)}, got {sorted(found)}"
    for name in wanted:
        assert_near(f"'{name}' {what}", found[name], wanted[name], tolerance, fix=fix)


def assert_finite(what: str, tensors: Mapping[str, Tensor]) -> None:
    """No NaN and no infinity."""
    for name, tensor in tensors.items():
        wrong = int((~tensor.isfinite()).sum())
        assert not wrong, f"'{name}' {what}: expected finite numbers, got {wrong} NaN or infinite of {tensor.numel()}"
