"""The image tower of a folder of timm, such as DINOv2 or a ConvNeXt, in open_clip's words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from kdkit.plugins.loaders.timm_vision import load_timm
from kdkit.plugins.students.tower_weights import no_tower

_CLASSIFIER = "num_classes"
"""The argument of a model that changes only what is left out."""


def timm_tower(config: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """``vision_cfg``, weights by their names in the student, ``preprocess_cfg``.

    open_clip builds the architecture as timm has it, without arguments, and pools as the architecture does.

    Args:
        config: the content of ``config.json``, with ``architecture``.

    Raises:
        KdkitError: the model was built with arguments, or its weights do not fit.
    """
    name, given = str(config["architecture"]), dict(config.get("model_args") or {})
    if others := [key for key in given if key != _CLASSIFIER]:
        why = f"open_clip builds {name} without arguments, and its config has {', '.join(others)}"
        raise no_tower(folder, "image", why, "a model of timm that was built without arguments")
    encoder = load_timm(folder)
    described = {**timm.get_pretrained_cfg(name).to_dict(), **(config.get("pretrained_cfg") or {})}
    vision_cfg = {
        "image_size": int(described["input_size"][-1]),
        "timm_model_name": name,
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
    }
    tensors = {f"visual.trunk.{key}": value.detach() for key, value in encoder.model.state_dict().items()}
    preprocess_cfg = {key: described[key] for key in ("mean", "std", "interpolation") if described.get(key)}
    return vision_cfg, tensors, {key: list(v) if isinstance(v, tuple) else v for key, v in preprocess_cfg.items()}
