"""The students of the demo, and the architectures that they share with its teachers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdkit.plugins.demo.canvas import SIZE
from kdkit.plugins.demo.captions import word_list
from kdkit.plugins.demo.questions import question_words
from kdkit.plugins.loaders.word_tokenizer import word_vocabulary

CONTEXT_LENGTH = 16
"""Tokens of a text, with begin and end; longer texts are cut."""
PREPROCESS_CONFIG: dict[str, Any] = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "interpolation": "bicubic",
    "resize_mode": "squash",
}
"""The ``preprocess_cfg`` of the dual encoders."""
SIDE = 84
"""Side of a picture in pixels as the answering models see it: 3 x 3 image tokens."""
INPUTS: Mapping[str, Any] = {
    "max_tokens": 64,
    "max_answer": 16,
    "min_pixels": SIDE * SIDE,
    "max_pixels": 112 * 112,  # for pictures that are not square
    "system": "",
}
"""Input settings of the answering models."""


def model_config(embed_dim: int) -> dict[str, Any]:
    """An open_clip ``model_cfg``: a GroupNorm convnet of 0.1 M parameters and a two-layer causal text transformer."""
    vision = {
        "image_size": SIZE,
        "timm_model_name": "test_efficientnet_gn",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
    }
    text = {
        "context_length": CONTEXT_LENGTH,
        "vocab_size": len(word_vocabulary(word_list())),
        "hf_tokenizer_name": "local",
        "width": 64,
        "heads": 2,
        "layers": 2,
        "mlp_ratio": 2.0,
    }
    return {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": text}


def create_student(
    model_cfg: Mapping[str, Any] | None = None,
    preprocess_cfg: Mapping[str, Any] | None = None,
    tokenizer: Mapping[str, Any] | None = None,
) -> Any:
    """Factory of the family ``demo-student``: an untrained ``OpenClipStudent``; every argument has a default."""
    from kdkit.plugins.students.open_clip import create_student as create

    return create(
        model_cfg=model_cfg or model_config(128),
        preprocess_cfg=preprocess_cfg or PREPROCESS_CONFIG,
        tokenizer=tokenizer or {"words": list(word_list())},
    )


def model_sizes(hidden: int, layers: int, vision_hidden: int) -> dict[str, Any]:
    """``sizes`` of a ``clinkd`` student: a small Qwen2-VL whose vocabulary has one token per word of the demo."""
    return {
        "hidden": hidden,
        "layers": layers,
        "heads": 4,
        "kv_heads": 2,
        "vision_hidden": vision_hidden,
        "vision_layers": 2,
        "vision_heads": 4,
        "words": question_words(),
    }


def create_answerer(**config: Any) -> Any:
    """Factory of the family ``demo-answerer``: a ``clinkd`` student with 0.3 million random weights, all trained;
    ``config`` is that of ``clinkd``, with defaults for everything."""
    from kdkit.plugins.students.clinkd.create import create_student as create

    defaults: dict[str, Any] = {"freeze_vision": False, **INPUTS}
    if config.get("init") is None:
        defaults["sizes"] = model_sizes(hidden=64, layers=3, vision_hidden=48)
    return create(**{**defaults, **config})
