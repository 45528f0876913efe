"""Weights of the fork of open_clip in which UniMed-CLIP and MMKD-CLIP were trained; they come without a config.

The fork calls the text tower ``text_encoder``, which open_clip calls ``text``; all else is a stock model of open_clip
with a BERT as text tower. Source: github.com/mbzuai-oryx/UniMed-CLIP at 6f09177, src/open_clip/model.py, hf_model.py.
"""

from __future__ import annotations

from collections.abc import Collection
from math import isqrt
from typing import Any

from kdkit.plugins.loaders.layouts import UNIMED_CLIP, Shapes, has_layout

_HEAD_WIDTH = 64
_CONTEXT = 256
_TOWERS = {1024: "microsoft/BiomedNLP-BiomedBERT-large-uncased-abstract"}
"""Width of the text tower -> its repository, where it is not the usual one."""
_TOWER = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"


def is_unimed_clip(names: Collection[str]) -> bool:
    """Whether weights of these names were trained in the fork."""
    return has_layout(names, UNIMED_CLIP)


def unimed_clip_config(shapes: Shapes) -> dict[str, Any]:
    """The ``model_cfg`` of open_clip for weights of these shapes.

    Everything but the width of a head, the activation and the context length follows from the shapes.
    """
    width, _, patch, _ = shapes["visual.conv1.weight"]
    patches = shapes["visual.positional_embedding"][0] - 1
    tower = text_tower(shapes)
    return {
        "embed_dim": shapes["visual.proj"][1],
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": isqrt(patches) * patch,
            "layers": sum(name.endswith(".attn.in_proj_weight") for name in shapes),
            "width": width,
            "head_width": _HEAD_WIDTH,
            "patch_size": patch,
        },
        "text_cfg": {
            "hf_model_name": tower,
            "hf_tokenizer_name": tower,
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": _CONTEXT,
        },
    }


def text_tower(shapes: Shapes) -> str:
    """The repository of the text tower's config and tokenizer."""
    return _TOWERS.get(shapes["text_encoder.transformer.embeddings.word_embeddings.weight"][1], _TOWER)


def open_clip_name(name: str) -> str:
    """What open_clip calls the weight ``name`` of the fork."""
    tower, dot, rest = name.partition(".")
    return f"text{dot}{rest}" if tower == "text_encoder" else name
