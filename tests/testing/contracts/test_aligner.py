"""The contract of aligners finds what is wrong on purpose here."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdkit.testing import AlignerContract, checks
from tests.testing.harness import failed, found_by, skipped

HERE = f"{__name__}:"
Rows = Mapping[str, Tensor]


class LeastSquares(nn.Module):
    """Right: one map from all rows to the anchor, and its pseudo-inverse back."""

    encoder: Tensor

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.register_buffer("encoder", torch.zeros(in_dim, out_dim))

    def fit(self, features: Rows, anchor: Rows | None = None, *, seed: int = 0) -> None:  # noqa: ARG002
        assert anchor is not None
        x, y = (torch.cat([rows[name] for name in sorted(rows)]) for rows in (features, anchor))
        self.encoder.copy_(torch.linalg.pinv(x) @ y)

    def encode(self, name: str, x: Tensor) -> Tensor:  # noqa: ARG002
        return x @ self.encoder

    def decode(self, name: str, z: Tensor) -> Tensor:  # noqa: ARG002
        back: Tensor = torch.linalg.pinv(self.encoder)
        return z @ back


class Narrow(LeastSquares):
    def decode(self, name: str, z: Tensor) -> Tensor:
        return super().decode(name, z)[:, :4]


class Undefined(LeastSquares):
    def encode(self, name: str, x: Tensor) -> Tensor:
        return super().encode(name, x).log()


class GlobalSeed(LeastSquares):
    def fit(self, features: Rows, anchor: Rows | None = None, *, seed: int = 0) -> None:
        super().fit(features, anchor, seed=seed)
        self.encoder.add_(torch.randn_like(self.encoder))


class MovesSeed(LeastSquares):
    def fit(self, features: Rows, anchor: Rows | None = None, *, seed: int = 0) -> None:
        torch.manual_seed(seed)
        super().fit(features, anchor, seed=seed)


class Centered(LeastSquares):
    def encode(self, name: str, x: Tensor) -> Tensor:
        return super().encode(name, x - x.mean(0))


class HiddenState(LeastSquares):
    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(in_dim, out_dim)
        self.factor = random.random() + 1

    def encode(self, name: str, x: Tensor) -> Tensor:
        return self.factor * super().encode(name, x)


class InPlace(LeastSquares):
    def fit(self, features: Rows, anchor: Rows | None = None, *, seed: int = 0) -> None:
        for rows in features.values():
            rows.sub_(rows.mean(0))
        super().fit(features, anchor, seed=seed)


class NeedsGradients(LeastSquares):
    def fit(self, features: Rows, anchor: Rows | None = None, *, seed: int = 0) -> None:
        super().fit(features, anchor, seed=seed)
        weight = torch.ones((), requires_grad=True)
        torch.autograd.backward((weight * self.encoder).sum())


class Rounded(LeastSquares):
    """Large numbers that cancel: float32 can, bf16 cannot."""

    def encode(self, name: str, x: Tensor) -> Tensor:  # noqa: ARG002
        return (x + 1000) @ self.encoder - torch.full_like(x, 1000.0) @ self.encoder


MISTAKES = [
    (Narrow, "test_shapes", "decode 12 -> 8: expected (64, 12)"),
    (Undefined, "test_shapes", "NaN or infinite"),
    (GlobalSeed, "test_deterministic", "draw from 'seed' alone"),
    (MovesSeed, "test_deterministic", "fitting moves torch's global seed"),
    (Centered, "test_rows_are_independent", "a row alone and in a batch"),
    (HiddenState, "test_state_round_trip", "encoded after a state round trip"),
    (InPlace, "test_inputs_unchanged", "the features 'image' were changed in place"),
    (NeedsGradients, "test_no_gradient", "does not require grad"),
    (Rounded, "test_bf16", "in bf16: expected the same within 0.05"),
]


def test_an_aligner_that_is_right_passes() -> None:
    found = found_by(AlignerContract, HERE + "LeastSquares")
    assert failed(found) == {}
    assert skipped(found) == set()


@pytest.mark.parametrize(("aligner", "check", "message"), MISTAKES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mistake_is_found(aligner: type[Any], check: str, message: str) -> None:
    found = failed(found_by(AlignerContract, HERE + aligner.__name__))
    assert message in found.get(check, f"passed; failed: {found}")


def test_every_check_finds_a_mistake() -> None:
    assert {name for name, _ in checks(AlignerContract)} == {check for _, check, _ in MISTAKES}
