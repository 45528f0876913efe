"""Patches as a matrix product: the convolution's own numbers, gradients and weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from kdkit.plugins.students.clinkd.patch_products import PatchProduct, multiply_patches

KERNEL = (2, 4, 3)


def gradients(layer: nn.Module, x: Tensor, towards: Tensor) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    found = layer(x)
    return found, *torch.autograd.grad((found * towards).sum(), [x, *layer.parameters()])


@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_are_those_of_the_convolution(bias: bool) -> None:
    torch.manual_seed(0)
    stock = nn.Conv3d(3, 5, KERNEL, stride=KERNEL, bias=bias, dtype=torch.float64)
    ours = copy.deepcopy(stock)
    multiply_patches(ours)
    assert type(ours) is PatchProduct
    assert ours.state_dict().keys() == stock.state_dict().keys()
    for size in (KERNEL, (4, 4, 6)):  # a patch, and more than one
        x = torch.randn(7, 3, *size, dtype=torch.float64)
        towards = torch.randn(stock(x).shape, dtype=torch.float64)
        for one, other in zip(gradients(ours, x, towards), gradients(stock, x, towards), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    patches = torch.randn(7, 3, *KERNEL, dtype=torch.float64)
    assert torch.equal(ours.eval()(patches), stock(patches))
    with pytest.raises(RuntimeError, match="channels"):
        ours(torch.randn(7, 2, *KERNEL, dtype=torch.float64))


def test_layers_that_are_not_known_stay() -> None:
    padded, dilated = nn.Conv3d(3, 5, 2, padding=1), nn.Conv3d(3, 5, 2, dilation=2)
    multiply_patches(nn.ModuleList([padded, dilated]))
    assert {type(padded), type(dilated)} == {nn.Conv3d}
