"""Image towers of timm and transformers whose sizes follow from the shapes of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

import torch
from timm.models.resnet import Bottleneck, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import SwinConfig

from kdkit.plugins.loaders.layouts import Shapes, WeightFile, blocks, describe_mismatch, shapes_of

_HEAD_WIDTH = 64
_LAYER_SCALE = 1e-5
"""Initial value of layer scale; the weights replace it."""


def build_resnet(state: Mapping[str, Tensor], file: WeightFile) -> nn.Module:
    """torchvision's ResNet of bottlenecks without its classifier, whose weights timm's takes as they are.

    It maps (B, 3, H, W) to the mean over the last stage (B, D). Raises: KdkitError for weights that do not fit.
    """
    shapes, stages = shapes_of(state), range(1, 5)
    with torch.random.fork_rng(devices=[]), file.sizes_from_shapes():
        tower = ResNet(
            block=Bottleneck,
            layers=tuple(blocks(shapes, stage) for stage in stages),
            channels=tuple(shapes[f"layer{stage}.0.conv1.weight"][0] for stage in stages),
            num_classes=0,
        )
    return _load(tower, state, file)


def build_vit(state: Mapping[str, Tensor], file: WeightFile) -> nn.Module:
    """timm's vision transformer without its classifier: (B, 3, H, W) -> class token after the last norm (B, D).

    The scale of a layer may be called ``gamma``, as in timm, or ``weight``, as transformers once saved it. Heads are 64
    wide. Raises: KdkitError for weights that do not fit.
    """
    state = {name.replace(".weight", ".gamma") if _is_scale(name) else name: value for name, value in state.items()}
    shapes = shapes_of(state)
    with torch.random.fork_rng(devices=[]), file.sizes_from_shapes():
        width, _, patch, _ = shapes["patch_embed.proj.weight"]
        tower = VisionTransformer(
            img_size=isqrt(shapes["pos_embed"][1] - 1) * patch,
            patch_size=patch,
            num_classes=0,
            embed_dim=width,
            depth=sum(name.endswith(".attn.qkv.weight") for name in shapes),
            num_heads=width // _HEAD_WIDTH,
            mlp_ratio=shapes["blocks.0.mlp.fc1.weight"][0] / width,
            init_values=_LAYER_SCALE if any(map(_is_scale, shapes)) else None,
        )
    return _load(tower, state, file)


def swin_config(shapes: Shapes, image_size: int) -> SwinConfig:
    """The config of transformers for a Swin transformer; all but the image's size follows from the shapes."""
    width, _, patch, _ = shapes["embeddings.patch_embeddings.projection.weight"]
    tables: dict[int, list[tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        if name.endswith("relative_position_bias_table"):
            tables.setdefault(int(name.split(".")[2]), []).append(shape)
    stages = [tables[stage] for stage in sorted(tables)]
    return SwinConfig(
        image_size=image_size,
        patch_size=patch,
        embed_dim=width,
        depths=[len(stage) for stage in stages],
        num_heads=[stage[0][1] for stage in stages],
        window_size=(isqrt(stages[0][0][0]) + 1) // 2,
        mlp_ratio=shapes["encoder.layers.0.blocks.0.intermediate.dense.weight"][0] / width,
    )


def _is_scale(name: str) -> bool:
    return name.endswith((".ls1.weight", ".ls2.weight", ".ls1.gamma", ".ls2.gamma"))


def _load(tower: nn.Module, state: Mapping[str, Tensor], file: WeightFile) -> nn.Module:
    file.require_fit(describe_mismatch(shapes_of(tower.state_dict()), shapes_of(state)))
    tower.load_state_dict(dict(state))
    return tower.eval()


class Projected(nn.Module):
    """An image tower and a linear projection (D, width) of its features."""

    def __init__(self, tower: nn.Module, projection: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.tower = tower
        self.projection = nn.Parameter(projection)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D)."""
        return linear(self.tower(pixels), self.projection, self.bias)
