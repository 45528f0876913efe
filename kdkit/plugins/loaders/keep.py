"""KEEP (Zhou et al. 2024, arXiv:2412.13126): ViT-L/16 of timm and a BERT, for pathology.

Source: github.com/MAGIC-AI4Med/KEEP at a346a70, quick_start/keep_inference.py. Its repository at the Hub has the same
model as code (``auto_map``), which is not run: both towers are stock models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from timm.data import create_transform
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from kdkit.core.base.tensors import read_tensors
from kdkit.plugins.loaders.adapter_base import read_object
from kdkit.plugins.loaders.image_towers import build_vit
from kdkit.plugins.loaders.layouts import KEEP, WeightFile, describe_mismatch, part, shapes_of
from kdkit.plugins.loaders.open_clip_folder import find_tokenizer, find_weights
from kdkit.plugins.loaders.own_files import require_own_parts
from kdkit.plugins.loaders.precision import dtype_of
from kdkit.plugins.loaders.text_tower import Reading, TextTower, build_tower
from kdkit.plugins.loaders.two_towers import TwoTowers

_CONTEXT, _HEAD = 256, "visual_head."
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_keep(folder: Path, *, weights: str | None = None, precision: str = "float32") -> TwoTowers:
    """A frozen teacher from the authors' folder, offline and strictly.

    Args:
        folder: ``config.json`` with the ``text_config`` of its BERT, the weights and tokenizer files.
        weights: the weights' file name, if there are several.
        precision: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        KdkitError: the folder is incomplete, or another model's.
    """
    folder = Path(folder)
    dtype, path = dtype_of(precision), find_weights(folder, weights)
    state = read_tensors(path)
    file = WeightFile(str(path), "KEEP", state)
    file.require_layout(KEEP)
    file.require_known(("visual.", _HEAD, "text.", "logit_scale"))
    tower = build_vit(part(state, "visual."), file)
    image = nn.Sequential(tower, _head(part(state, _HEAD), file))
    size = tower.patch_embed.img_size[0]  # type: ignore[union-attr, index]
    settings: dict[str, Any] = {"input_size": (3, size, size), "interpolation": "bicubic", "mean": _MEAN, "std": _STD}
    transform = create_transform(**settings, crop_pct=1.0, is_training=False)
    model = TwoTowers(image, _text_tower(folder, part(state, "text."), file), transform, {"timm": settings})
    return model.to(dtype).requires_grad_(False).eval()


def _head(state: dict[str, Tensor], file: WeightFile) -> nn.Module:
    with torch.random.fork_rng(devices=[]), file.sizes_from_shapes():
        (hidden, width), (out, _) = state["0.weight"].shape, state["2.weight"].shape
        head = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out))
    file.require_fit(describe_mismatch(shapes_of(head.state_dict(), _HEAD), shapes_of(state, _HEAD)))
    head.load_state_dict(state)
    return head


def _text_tower(folder: Path, state: dict[str, Tensor], file: WeightFile) -> TextTower:
    """The BERT with its pooler; its features are not projected."""
    config = read_object(folder / "config.json").get("text_config")
    known = dict(config) if isinstance(config, dict) else {}
    require_own_parts(known, str(folder))
    bert = build_tower(BertModel, BertConfig.from_dict(known), state, file)
    reading = Reading(_CONTEXT, reads_padding=False, pool=_pooler, name="pooler")
    return TextTower(bert, torch.eye(int(bert.config.hidden_size)), find_tokenizer(folder, "KEEP"), reading)


def _pooler(output: Any, mask: Tensor) -> Tensor:
    del mask
    pooled: Tensor = output.pooler_output
    return pooled
