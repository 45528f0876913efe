"""MedCLIP (Wang et al. 2022, arXiv:2210.10163): Swin-T or ResNet-50, and a BERT whose tokens and layers are averaged.

Source: github.com/RyanWangZf/MedCLIP at 9c3396f, medclip/modeling_medclip.py and dataset.py (MedCLIPFeatureExtractor).
The original averages over the padding of a batch too, so a text's features depend on its neighbors. Here they are those
of the text alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn
from transformers import SwinModel

from kdkit.core.base.tensors import read_tensors
from kdkit.plugins.loaders.image_towers import swin_config
from kdkit.plugins.loaders.layouts import MEDCLIP, WeightFile, blocks, describe_mismatch, part, shapes_of
from kdkit.plugins.loaders.open_clip_folder import find_weights
from kdkit.plugins.loaders.precision import dtype_of
from kdkit.plugins.loaders.text_tower import (
    AVERAGED,
    BIO_CLINICAL_BERT,
    Reading,
    build_tower,
    mean_of_layers,
    read_text_tower,
)
from kdkit.plugins.loaders.two_towers import TwoTowers

_IMAGE, _TEXT = "vision_model.", "text_model."
_SWIN, _RESNET = "vision_model.projection_head.weight", "vision_model.model.fc.weight"
_SIZE, _CONTEXT = 224, 77
_MEAN, _STD = 0.5862785803043838, 0.27950088968644304


def load_medclip(folder: Path, *, weights: str | None = None, precision: str = "float32") -> TwoTowers:
    """A frozen teacher from the authors' ``pytorch_model.bin``, offline and strictly.

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
    swin, file = _SWIN in state, WeightFile(str(path), "MedCLIP", state)
    file.require_layout((*MEDCLIP, _SWIN if swin else _RESNET))
    file.require_known((f"{_IMAGE}model.", _SWIN if swin else _RESNET, f"{_TEXT}model.", MEDCLIP[0], "logit_scale"))
    image_state = part(state, f"{_IMAGE}model.")
    image = _SwinTower(image_state, state[_SWIN], file) if swin else _build_resnet(image_state, file)
    reading = Reading(_CONTEXT, reads_padding=False, pool=mean_of_layers, name=f"mean of layers {AVERAGED}")
    text = read_text_tower(folder, part(state, f"{_TEXT}model."), state[MEDCLIP[0]], BIO_CLINICAL_BERT, reading, file)
    preprocessing = {"gray": "L", "pad": "black square", "size": _SIZE, "resize": "bicubic", "mean": _MEAN, "std": _STD}
    model = TwoTowers(image, text, preprocess_image, {"medclip": preprocessing})
    return model.to(dtype).requires_grad_(False).eval()


def preprocess_image(image: Image.Image) -> Tensor:
    """RGB image -> (3, 224, 224) float32 with three equal channels.

    Gray, centered on a black square of at least 224 pixels, resized bicubically. Smaller images are not enlarged.
    """
    width, height = image.size
    side = max(_SIZE, width, height)
    square = Image.new("L", (side, side), 0)
    square.paste(image.convert("L"), ((side - width) // 2, (side - height) // 2))
    resized = square.resize((_SIZE, _SIZE), Image.Resampling.BICUBIC)
    gray = np.asarray(resized, dtype=np.float32) * np.float32(1 / 255.0)
    normalized = (gray - np.float32(_MEAN)) / np.float32(_STD)
    return torch.from_numpy(normalized).expand(3, -1, -1).contiguous()


class _SwinTower(nn.Module):
    """A Swin transformer of transformers, its mean over the patches, and a projection."""

    def __init__(self, state: Mapping[str, Tensor], projection: Tensor, file: WeightFile) -> None:
        super().__init__()
        with file.sizes_from_shapes():
            config = swin_config(shapes_of(state), _SIZE)
        self.swin = build_tower(SwinModel, config, state, file)
        self.projection = nn.Parameter(projection)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D)."""
        pooled: Tensor = self.swin(pixel_values=pixels).pooler_output
        return pooled @ self.projection.T


def _build_resnet(state: Mapping[str, Tensor], file: WeightFile) -> nn.Module:
    """torchvision's ResNet-50, whose weights timm's takes as they are, with the projection as its classifier."""
    shapes, stages = shapes_of(state), range(1, 5)
    with torch.random.fork_rng(devices=[]), file.sizes_from_shapes():
        tower: nn.Module = ResNet(
            block=Bottleneck,
            layers=tuple(blocks(shapes, stage) for stage in stages),
            channels=tuple(shapes[f"layer{stage}.0.conv1.weight"][0] for stage in stages),
            num_classes=1,
        )
        out, width = shapes["fc.weight"]
    tower.fc = nn.Linear(width, out, bias=False)
    file.require_fit(describe_mismatch(shapes_of(tower.state_dict()), shapes))
    tower.load_state_dict(dict(state))
    return tower
