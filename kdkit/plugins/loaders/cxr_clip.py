"""CXR-CLIP (You et al. 2023, arXiv:2310.13292): ResNet-50 or Swin-T and Bio_ClinicalBERT for chest X-rays.

Source: github.com/kakaobrain/cxr-clip at 955ab93, cxrclip/model. The Swin tower gives its first patch, as the authors'
code does for every tower but the ResNet; a text is its last token.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.data import create_transform
from torch import Tensor, nn
from transformers import SwinModel

from kdkit.core.base.tensors import read_tensors
from kdkit.plugins.loaders.image_towers import Projected, build_resnet, swin_config
from kdkit.plugins.loaders.layouts import CXR_CLIP, WeightFile, describe_mismatch, part, shapes_of
from kdkit.plugins.loaders.open_clip_folder import find_weights
from kdkit.plugins.loaders.precision import dtype_of
from kdkit.plugins.loaders.text_tower import BIO_CLINICAL_BERT, Reading, build_tower, read_text_tower
from kdkit.plugins.loaders.two_towers import TwoTowers

_RESNET, _SWIN, _TEXT = "image_encoder.resnet.", "image_encoder.image_encoder.", "text_encoder.text_encoder."
_HEADS = ("image_projection.projection.", "text_projection.projection.")
_SIZE, _CONTEXT = 224, 256
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def load_cxr_clip(folder: Path, *, weights: str | None = None, precision: str = "float32") -> TwoTowers:
    """A frozen teacher from one of the authors' checkpoints (``r50_mcc.tar``, ``swint_mcc.tar``), offline and strictly.

    Args:
        folder: the weights, and ``text/`` with config and tokenizer of the text tower.
        weights: the weights' file name, if there are several.
        precision: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        KdkitError: the folder is incomplete, or another model's.
    """
    folder = Path(folder)
    dtype, path = dtype_of(precision), find_weights(folder, weights)
    state = read_tensors(path)
    file = WeightFile(str(path), "CXR-CLIP", state)
    file.require_layout(CXR_CLIP)
    file.require_known((_RESNET, _SWIN, _TEXT, *_HEADS, "logit_scale"))
    resnet = part(state, _RESNET)
    tower = build_resnet(resnet, file) if resnet else _SwinTower(part(state, _SWIN), file)
    image = Projected(tower, *_projection(state, _HEADS[0], file))
    settings: dict[str, Any] = {"input_size": (3, _SIZE, _SIZE), "interpolation": "bilinear"}
    settings |= _IMAGENET if resnet else _HALF
    transform = create_transform(**settings, crop_pct=1.0, is_training=False)
    reading = Reading(_CONTEXT, reads_padding=False, pool=_last_token, name="last token, with bias")
    weight, bias = _projection(state, _HEADS[1], file)
    projection = torch.cat([weight, bias[:, None]], dim=1)  # the pooled features end with a 1
    text = read_text_tower(folder, part(state, _TEXT), projection, BIO_CLINICAL_BERT, reading, file)
    model = TwoTowers(image, text, transform, {"timm": settings})
    return model.to(dtype).requires_grad_(False).eval()


def _projection(state: Mapping[str, Tensor], prefix: str, file: WeightFile) -> tuple[Tensor, Tensor]:
    """Weight (D, width) and bias (D,)."""
    weight, bias = state[f"{prefix}weight"], state[f"{prefix}bias"]
    expected = {f"{prefix}weight": tuple(weight.shape), f"{prefix}bias": tuple(weight.shape[:1])}
    file.require_fit(describe_mismatch(expected, shapes_of(part(state, prefix), prefix)))
    return weight, bias


class _SwinTower(nn.Module):
    """A Swin transformer of transformers: (B, 3, H, W) -> its first patch after the last norm (B, D)."""

    def __init__(self, state: Mapping[str, Tensor], file: WeightFile) -> None:
        super().__init__()
        with file.sizes_from_shapes():
            config = swin_config(shapes_of(state), _SIZE)
        self.swin = build_tower(SwinModel, config, state, file)

    def forward(self, pixels: Tensor) -> Tensor:
        tokens: Tensor = self.swin(pixel_values=pixels).last_hidden_state
        return tokens[:, 0]


def _last_token(output: Any, mask: Tensor) -> Tensor:
    """The token before the padding, and a 1 for the bias."""
    tokens: Tensor = output.last_hidden_state
    last = tokens[torch.arange(len(tokens), device=tokens.device), mask.sum(1) - 1]
    return torch.cat([last, torch.ones_like(last[:, :1])], dim=1)
