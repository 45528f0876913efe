"""The demo's student and the shape that all its models share: small open_clip dual encoders without BatchNorm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdkit.plugins.demo.canvas import SIZE
from kdkit.plugins.demo.captions import word_list
from kdkit.plugins.loaders.word_tokenizer import word_vocabulary

CONTEXT_LENGTH = 16
"""Tokens in a text, with its begin and end; longer texts are cut."""

PREPROCESS_CONFIG: dict[str, Any] = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "interpolation": "bicubic",
    "resize_mode": "squash",
}
"""The ``preprocess_cfg`` of every demo model."""


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


STUDENT_CONFIG: dict[str, Any] = model_config(128)
"""The ``model_cfg`` of the demo's student."""


def create_student(
    model_cfg: Mapping[str, Any] | None = None,
    preprocess_cfg: Mapping[str, Any] | None = None,
    tokenizer: Mapping[str, Any] | None = None,
) -> Any:
    """Factory of the student family ``demo-student``: an untrained ``OpenClipStudent``; all has defaults."""
    from kdkit.plugins.students.open_clip import create_student as create

    return create(
        model_cfg=model_cfg or STUDENT_CONFIG,
        preprocess_cfg=preprocess_cfg or PREPROCESS_CONFIG,
        tokenizer=tokenizer or {"words": list(word_list())},
    )
