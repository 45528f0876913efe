"""Tiny models in the files and names of FLAIR, KEEP and CXR-CLIP, beside stock models with the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn
from transformers import BertConfig, SwinConfig, SwinModel

from tests.plugins.loaders.original_layouts import HIDDEN, Towers, saved_names, stock_towers

WIDTH, RESNET_WIDTH = 24, 128


def _resnet() -> Any:
    """timm's names and features of a ResNet are torchvision's: test_medclip compares them."""
    torch.manual_seed(0)
    return ResNet(Bottleneck, layers=(1, 1, 1, 1), channels=(8, 16, 24, 32), num_classes=0)


def _prefixed(prefix: str, state: Any) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def make_flair(folder: Path) -> Towers:
    """``flair_resnet.pth``: a state dict, and ``text/``."""
    towers = stock_towers(folder, _resnet())
    towers.projections.update(image=torch.randn(WIDTH, RESNET_WIDTH), text=torch.randn(WIDTH, HIDDEN))
    state = _prefixed("vision_model.model.", towers.image.state_dict())
    state |= _prefixed("text_model.model.", towers.bert.state_dict())
    state["vision_model.projection_head_vision.projection.weight"] = towers.projections["image"]
    state["text_model.projection_head_text.projection.weight"] = towers.projections["text"]
    state["logit_scale"] = torch.ones(())
    torch.save(state, folder / "flair_resnet.pth")
    return towers


def make_cxr_clip(folder: Path, kind: str) -> Towers:
    """``r50_mcc.tar`` or ``swint_mcc.tar``: a training checkpoint, and ``text/``."""
    if kind == "swin":
        torch.manual_seed(0)
        image: Any = SwinModel(SwinConfig(embed_dim=16, depths=[1, 2], num_heads=[2, 4], mlp_ratio=2.0))
        state = _prefixed("image_encoder.image_encoder.", saved_names(image, folder))
        width = 32
    else:
        image, width = _resnet(), RESNET_WIDTH
    towers = stock_towers(folder, image)
    if kind != "swin":
        state = _prefixed("image_encoder.resnet.", image.state_dict())
    state |= _prefixed("text_encoder.text_encoder.", towers.bert.state_dict())
    for name, inputs in {"image": width, "text": HIDDEN}.items():
        towers.projections.update({name: torch.randn(WIDTH, inputs), f"{name} bias": torch.randn(WIDTH)})
        state[f"{name}_projection.projection.weight"] = towers.projections[name]
        state[f"{name}_projection.projection.bias"] = towers.projections[f"{name} bias"]
    state["logit_scale"] = torch.ones(())
    checkpoint = {"model": state, "optimizer": {"state": {}}, "config": {"base": {}}, "train_loss": np.float64(0.5)}
    torch.save(checkpoint, folder / ("swint_mcc.tar" if kind == "swin" else "r50_mcc.tar"))
    return towers


def make_keep(folder: Path, scale: str = "weight") -> tuple[Towers, nn.Module]:
    """``model.safetensors``, ``config.json`` with the model's own code, tokenizer files. Returns the head too.

    Args:
        scale: how the file calls the scale of a layer.
    """
    torch.manual_seed(0)
    visual = timm.create_model(
        "vit_large_patch16_224", img_size=64, embed_dim=128, depth=2, num_heads=2, init_values=0.5, num_classes=0
    )
    head = nn.Sequential(nn.Linear(128, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN))
    towers = stock_towers(folder, visual)
    config = BertConfig.from_pretrained(folder / "text").to_dict()
    for path in (folder / "text").iterdir():
        path.rename(folder / path.name)
    (folder / "text").rmdir()
    state = _prefixed("visual.", {name.replace("gamma", scale): value for name, value in visual.state_dict().items()})
    state |= _prefixed("visual_head.", head.state_dict()) | _prefixed("text.", towers.bert.state_dict())
    save_file({**state, "logit_scale": torch.ones(())}, folder / "model.safetensors")
    own_code = {"AutoModel": "modeling_keep.KEEPModel"}
    whole = {"model_type": "keep", "auto_map": own_code, "projection_dim": HIDDEN, "text_config": config}
    (folder / "config.json").write_text(json.dumps(whole), encoding="utf-8")
    (folder / "modeling_keep.py").write_text("raise SystemExit\n", encoding="utf-8")
    return towers, head
