"""The vision tower's RoPE variant: frequencies that are learnt for each layer and head."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kdkit.core.contracts import RopeVariant
from kdkit.plugins.students.clinkd.families.spec import FamilySpec
from kdkit.plugins.students.clinkd.rotary import refused

TOWERS = ("qwen2_vl", "qwen2_5_vl")
"""Families whose vision towers can be turned; others add learnt positions to their patches."""


class VisionTurns(nn.Module):
    """Learnt frequencies of a vision tower, one set per layer and head (RoPE-Mixed).

    Queries and keys are turned where ``qkv`` gives them, and the attention's own rotation then turns by nothing.

    Args:
        network: the model; hooks on its vision tower refer to this module.
        variant: where the frequencies start.
        family: of the network.

    Raises:
        KdkitError: a variant that this tower cannot take.
    """

    def __init__(self, network: Any, variant: RopeVariant, name: str, family: FamilySpec) -> None:
        super().__init__()
        if family.name not in TOWERS:
            raise refused(name, f"kdkit does not turn the vision tower of {family.name}", "leave vision_rope out")
        visual = network.model.visual
        if variant.tower != "vision":
            raise refused(name, "it belongs to a language tower", "name it as rope")
        if "position_ids" not in inspect.signature(visual.rotary_pos_emb.forward).parameters:
            raise refused(name, "this transformers computes the tower's positions elsewhere", "needs >= 5.18")
        heads = visual.config.num_heads
        planes = visual.blocks[0].attn.head_dim // 2
        self.layers = nn.ModuleList()
        for block in visual.blocks:
            start = variant.frequencies(torch.ones(planes), heads)
            if start.ndim not in (2, 3) or start.shape[0] != 2 or start.shape[-1] != planes:
                raise refused(name, f"its frequencies are {tuple(start.shape)}, the tower takes (2, {heads}, {planes})")
            start = start.reshape(2, -1, planes).expand(2, heads, planes)
            turn = LayerTurn(start, trainable=variant.trainable)
            block.attn.register_forward_pre_hook(turn.before, with_kwargs=True)
            block.attn.qkv.register_forward_hook(turn.after)
            self.layers.append(turn)
        visual.rotary_pos_emb = Coordinates()


class Coordinates(nn.Module):
    """Takes the place of a vision tower's rotary module: hands the patches' rows and columns on."""

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """(N, 2) -> itself as float32, twice, for what would be cosines and sines."""
        return position_ids.float(), position_ids.float()


class LayerTurn(nn.Module):
    """One layer's frequencies. (Methods of a module, so that a copy of the model hooks the copy's own.)"""

    def __init__(self, start: Tensor, *, trainable: bool) -> None:
        super().__init__()
        self._shape = tuple(start.shape)
        # Flat, as optimizers spare vectors from weight decay, which has no business here.
        self.frequencies = nn.Parameter(start.flatten().clone(), requires_grad=trainable)
        self._angle: Tensor | None = None

    def before(self, _: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The attention's pre-hook: from coordinates (N, 2) to angles (N, heads, F), and a rotation by nothing."""
        coordinates, _same = kwargs["position_embeddings"]
        down, across = self.frequencies.float().reshape(self._shape)
        self._angle = coordinates[:, :1, None] * down + coordinates[:, 1:, None] * across
        width = 2 * self._shape[-1]
        still = coordinates.new_ones(len(coordinates), width), coordinates.new_zeros(len(coordinates), width)
        return args, {**kwargs, "position_embeddings": still}

    def after(self, _: nn.Module, args: Any, output: Tensor) -> Tensor:  # noqa: ARG002
        """The hook of ``qkv``: (N, 3 * heads * 2F) with queries and keys turned."""
        assert self._angle is not None
        heads, planes = self._shape[1:]
        qkv = output.reshape(-1, 3, heads, 2, planes).float()
        cosine, sine = self._angle.cos()[:, None], self._angle.sin()[:, None]
        first, second = qkv[:, :2].unbind(-2)
        turned = torch.stack([first * cosine - second * sine, second * cosine + first * sine], dim=-2)
        self._angle = None
        return torch.cat([turned, qkv[:, 2:]], dim=1).reshape(output.shape).to(output.dtype)
