"""The image tower of a CLIP model of transformers, in open_clip's words: the inverse of ``open_clip_transformers``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.plugins.loaders.hugging_face import without_reports

_RESAMPLE = {0: "nearest", 2: "bilinear", 3: "bicubic"}
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_NAMES = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "pre_layrnorm.weight": "ln_pre.weight",  # spelt so in transformers
    "pre_layrnorm.bias": "ln_pre.bias",
    "post_layernorm.weight": "ln_post.weight",
    "post_layernorm.bias": "ln_post.bias",
}
_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def clip_vision_cfg(config: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], bool, int | None, dict[str, Any]]:
    """``vision_cfg``, QuickGELU or not, width of the projection, ``preprocess_cfg``.

    Raises:
        KdkitError: an activation or a normalization that open_clip's ViT does not have.
    """
    from transformers import CLIPConfig, CLIPVisionConfig

    whole = config["model_type"] == "clip"
    vision = CLIPConfig.from_dict(dict(config)).vision_config if whole else CLIPVisionConfig.from_dict(dict(config))
    projected = int(config.get("projection_dim", 512)) if whole else None
    if vision.hidden_act not in ("gelu", "quick_gelu") or vision.layer_norm_eps != 1e-5:
        why = f"its activation is {vision.hidden_act}, its layer_norm_eps {vision.layer_norm_eps}"
        raise no_tower(folder, "image", why, "a CLIP model with gelu or quick_gelu and 1e-5")
    cfg = {
        "image_size": vision.image_size,
        "layers": vision.num_hidden_layers,
        "width": vision.hidden_size,
        "head_width": vision.hidden_size // vision.num_attention_heads,
        "mlp_ratio": vision.intermediate_size / vision.hidden_size,
        "patch_size": vision.patch_size,
    }
    return cfg, vision.hidden_act == "quick_gelu", projected, _preprocess_cfg(folder)


def _preprocess_cfg(folder: Path) -> dict[str, Any]:
    """Mean, standard deviation and interpolation of ``preprocessor_config.json``; CLIP's where it says nothing."""
    path = folder / "preprocessor_config.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    values = {
        "mean": found.get("image_mean"),
        "std": found.get("image_std"),
        "interpolation": _RESAMPLE.get(found.get("resample", 3)),
        "resize_mode": None if found.get("do_center_crop", True) else "squash",
    }
    return {name: value for name, value in values.items() if value is not None}


def clip_vision_tensors(folder: Path) -> dict[str, Tensor]:
    """``visual.*`` -> weights, float32.

    Raises:
        KdkitError: unreadable or incomplete weights.
    """
    from transformers import AutoConfig, CLIPModel, CLIPVisionModel

    try:
        with torch.random.fork_rng(devices=[]), without_reports():
            local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            kind = CLIPModel if AutoConfig.from_pretrained(folder, **local).model_type == "clip" else CLIPVisionModel
            model, found = kind.from_pretrained(folder, output_loading_info=True, dtype=torch.float32, **local)
        lacking = sorted(found["missing_keys"])
    except Exception as error:  # transformers raises any error for damaged files, and for pickles that hold code
        lacking = [" ".join(str(error).split())[:300]]
    if lacking:
        raise unreadable_tower(folder, "image", lacking)
    state = {name.removeprefix("vision_model."): t.detach() for name, t in model.state_dict().items()}
    return {f"visual.{name}": tensor for name, tensor in _renamed(state).items()}


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {new: state[old] for old, new in _NAMES.items()}
    if "visual_projection.weight" in state:
        renamed["proj"] = state["visual_projection.weight"].T.contiguous()
    blocks = {name.split(".")[2] for name in state if name.startswith("encoder.layers.")}
    for number in blocks:
        old, new = f"encoder.layers.{number}", f"transformer.resblocks.{number}"
        for kind in ("weight", "bias"):
            thirds = [state[f"{old}.self_attn.{which}_proj.{kind}"] for which in "qkv"]
            renamed[f"{new}.attn.in_proj_{kind}"] = torch.cat(thirds)
            renamed |= {f"{new}.{theirs}.{kind}": state[f"{old}.{ours}.{kind}"] for ours, theirs in _BLOCK.items()}
    return renamed


def is_repository(name: str) -> bool:
    """Whether it is ``ORG/NAME`` and no path."""
    return _REPOSITORY.fullmatch(name) is not None


def no_tower(folder: Path, tower: str, why: str, wanted: str) -> KdkitError:
    """The error of a folder of another kind."""
    return KdkitError(
        "KD-STUD-070",
        f"no {tower} tower for this student",
        where=str(folder),
        why=why,
        fix=f"give {wanted}, or the name of such a model: 'kdkit teachers' lists them",
    )


def unreadable_tower(folder: Path, tower: str, lacking: Sequence[str]) -> KdkitError:
    """The error of weights that are damaged or incomplete; ``lacking``: their names, or what a library says."""
    return KdkitError(
        "KD-STUD-068",
        f"the weights of the {tower} tower cannot be read, or are incomplete",
        where=str(folder),
        why=", ".join(lacking[:3]),
        fix="fetch the folder again, with its config.json and weights",
    )
