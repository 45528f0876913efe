"""The contract of RoPE variants finds what is wrong on purpose here."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.testing import RopeContract, checks
from tests.testing.harness import failed, found_by, skipped

HERE = f"{__name__}:"
Grids = Sequence[tuple[int, int, int]]


class Counted:
    """Right: every token at its index, on two axes that share the frequencies."""

    tower: Literal["language", "vision"] = "language"
    trainable = False

    def positions(self, modality: Tensor, grids: Grids) -> Tensor:
        if sum(t * h * w for t, h, w in grids) != int(modality.sum()):
            raise KdkitError("X-001", "the image tokens are not those of the grids")
        return torch.arange(len(modality)).expand(2, -1)

    def frequencies(self, inverse: Tensor, heads: int = 1) -> Tensor:  # noqa: ARG002
        return torch.stack([inverse / 2, inverse / 2])


class Transposed(Counted):
    def positions(self, modality: Tensor, grids: Grids) -> Tensor:
        return super().positions(modality, grids).T


class Rough(Counted):
    def positions(self, modality: Tensor, grids: Grids) -> Tensor:
        return super().positions(modality, grids).half()


class Drawn(Counted):
    def positions(self, modality: Tensor, grids: Grids) -> Tensor:
        return super().positions(modality, grids) + random.randrange(10**6)


class FromOne(Counted):
    def positions(self, modality: Tensor, grids: Grids) -> Tensor:
        return super().positions(modality, grids) + 1


class OneAxisForText(Counted):
    def positions(self, modality: Tensor, grids: Grids) -> Tensor:
        return super().positions(modality, grids)[: 2 if grids else 1]


class ImagesAtTheStart(Counted):
    def positions(self, modality: Tensor, grids: Grids) -> Tensor:
        counted = super().positions(modality, grids)
        return torch.where(modality == 1, (modality.cumsum(0) - 1).expand(2, -1), counted)


class FromTheEnd(Counted):
    """Fits any text alone, yet an image's place depends on how much follows."""

    def positions(self, modality: Tensor, grids: Grids) -> Tensor:
        return super().positions(modality, grids) - len(modality) * modality


class OnePlace(Counted):
    def positions(self, modality: Tensor, grids: Grids) -> Tensor:
        return (super().positions(modality, grids)[0] - modality.cumsum(0)).clamp(min=0).expand(2, -1)


class Trusting(Counted):
    def positions(self, modality: Tensor, grids: Grids) -> Tensor:  # noqa: ARG002
        return torch.arange(len(modality)).expand(2, -1)


class TwiceAsFast(Counted):
    def frequencies(self, inverse: Tensor, heads: int = 1) -> Tensor:
        return 2 * super().frequencies(inverse, heads)


class OneAxis(Counted):
    def frequencies(self, inverse: Tensor, heads: int = 1) -> Tensor:  # noqa: ARG002
        return inverse[None]


class Vision(Counted):
    tower = "vision"


MISTAKES = [
    (Transposed, "test_shape", "expected (axes, 26), got (26, 2)"),
    (Rough, "test_shape", "expected int64 or float64, got torch.float16"),
    (Drawn, "test_shape", "positions differ when computed again"),
    (FromOne, "test_text_is_one_dimensional", "expected 0 to 8 on every axis"),
    (OneAxisForText, "test_text_is_one_dimensional", "expected 2 axes as with images, got 1"),
    (ImagesAtTheStart, "test_text_before_shifts", "shift by 5 text tokens before"),
    (FromTheEnd, "test_text_after_changes_nothing", "positions change when text follows"),
    (OnePlace, "test_image_tokens_are_told_apart", "2 x 3 image: expected 6 positions, got 1"),
    (Trusting, "test_wrong_grids", "expected KdkitError for grids that do not fit, got none"),
    (TwiceAsFast, "test_frequencies", "sum over the axes: expected the same"),
    (OneAxis, "test_frequencies", "expected (2, 24) or (2, 2, 24), got (1, 24)"),
]


def test_a_variant_that_is_right_passes() -> None:
    found = found_by(RopeContract, HERE + "Counted")
    assert failed(found) == {}
    assert skipped(found) == set()


def test_a_vision_tower_sees_no_text() -> None:
    found = found_by(RopeContract, HERE + "Vision")
    assert failed(found) == {}
    assert len(skipped(found)) == 3


@pytest.mark.parametrize(("variant", "check", "message"), MISTAKES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mistake_is_found(variant: type[Any], check: str, message: str) -> None:
    found = failed(found_by(RopeContract, HERE + variant.__name__))
    assert message in found.get(check, f"passed; failed: {found}")


def test_every_check_finds_a_mistake() -> None:
    assert {name for name, _ in checks(RopeContract)} == {check for _, check, _ in MISTAKES}
