"""Tiny vision models without text, in the layouts of their libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch
import transformers
from safetensors.torch import save_file
from timm.models._hub import save_for_hf

from kdkit.core.contracts import Sample
from kdkit.plugins.loaders.image_encoder import ImageEncoder
from tests.tiny_models import pictures

SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TILE = {"image_size": 28, "patch_size": 14}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
SIDES: dict[str, Any] = {"size": {"height": 28, "width": 28}}
BIT: dict[str, Any] = {
    **IMAGENET,
    "size": {"shortest_edge": 30},
    "crop_size": {"height": 28, "width": 28},
    "resample": 3,
}
MODELS: dict[str, tuple[Any, Any, Any]] = {
    # RAD-DINO and Phikon-v2 have this model and processor
    "dinov2": (transformers.Dinov2Model, transformers.Dinov2Config(**SMALL, **TILE), ("BitImageProcessor", BIT)),
    "dinov2_with_registers": (
        transformers.Dinov2WithRegistersModel,
        transformers.Dinov2WithRegistersConfig(**SMALL, **TILE, num_register_tokens=4),
        ("BitImageProcessor", BIT),
    ),
    "dinov3_vit": (
        transformers.DINOv3ViTModel,
        transformers.DINOv3ViTConfig(**SMALL, **TILE, num_register_tokens=4),
        ("DINOv3ViTImageProcessor", {**IMAGENET, **SIDES}),
    ),
    "vit": (transformers.ViTModel, transformers.ViTConfig(**SMALL, **TILE), ("ViTImageProcessor", SIDES)),
    "convnext": (
        transformers.ConvNextModel,
        transformers.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], image_size=32),
        ("ConvNextImageProcessor", {**IMAGENET, "size": {"shortest_edge": 32}, "crop_pct": 0.875}),
    ),
    "swin": (
        transformers.SwinModel,
        transformers.SwinConfig(
            embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=2, image_size=32, patch_size=4
        ),
        ("ViTImageProcessor", {"size": {"height": 32, "width": 32}}),
    ),
}


def transformers_folder(folder: Path, name: str) -> Path:
    """A folder as ``save_pretrained`` writes it."""
    torch.manual_seed(0)
    model, config, (processor, settings) = MODELS[name]
    model(config).save_pretrained(folder)
    described = {"image_processor_type": processor, "do_resize": True, "do_normalize": True, **settings}
    (folder / "preprocessor_config.json").write_text(json.dumps(described))
    return folder


VIT: dict[str, Any] = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}
DATA: dict[str, Any] = {"input_size": [3, 32, 32], "interpolation": "bicubic", "crop_pct": 0.9, "mean": [0.7, 0.5, 0.7]}
RESNET: dict[str, Any] = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 32]}


def timm_folder(folder: Path, arch: str, model_args: dict[str, Any], data: dict[str, Any], **code: Any) -> Path:
    """A folder as timm's ``push_to_hf_hub`` writes it; ``code``: arguments that the authors pass in code."""
    torch.manual_seed(0)
    model: Any = timm.create_model(arch, pretrained=False, **model_args, **code)
    model.pretrained_cfg = {**model.pretrained_cfg, **data, "num_classes": model.num_classes}
    if code:  # which the config cannot hold
        folder.mkdir()
        config = {"architecture": arch, "pretrained_cfg": DATA, "model_args": model_args}
        (folder / "config.json").write_text(json.dumps(config))
        save_file(model.state_dict(), folder / "model.safetensors")
    else:
        save_for_hf(model, folder, model_args=model_args, safe_serialization=True)
    return folder


def stacked(encoder: ImageEncoder) -> torch.Tensor:
    return torch.stack([encoder.prepare(image, Sample("x", Path("x.png"), "", "ct")) for image in pictures()])
