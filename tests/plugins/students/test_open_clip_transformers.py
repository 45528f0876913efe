"""Which students have a transformers form; that it gives the same features is shown in test_push.py."""

from __future__ import annotations

from typing import Any

import pytest

from kdkit.plugins.students.open_clip_transformers import why_no_form
from tests.tiny_models import open_clip_config


def config(vision: dict[str, Any], text: dict[str, Any], model: dict[str, Any], preprocess: dict[str, Any]) -> Any:
    base = open_clip_config()
    cfg = {**base, "vision_cfg": base["vision_cfg"] | vision, "text_cfg": base["text_cfg"] | text, **model}
    return {"model_cfg": cfg, "preprocess_cfg": preprocess}


@pytest.mark.parametrize(
    ("vision", "text", "model", "preprocess"),
    [
        ({}, {}, {}, {}),
        ({"patch_dropout": 0.5}, {"proj_bias": False}, {"quick_gelu": True, "custom_text": True}, {}),
        ({}, {}, {}, {"resize_mode": "squash", "interpolation": "bilinear"}),
    ],
)
def test_a_plain_clip_has_one(vision: Any, text: Any, model: Any, preprocess: Any) -> None:
    assert why_no_form(config(vision, text, model, preprocess)) == ""


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("vision", {"timm_model_name": "vit"}, "timm's vit"),
        ("vision", {"layers": [1, 1, 1, 1]}, "ResNet"),
        ("vision", {"image_size": [32, 64]}, "not square"),
        ("vision", {"pool_type": "avg"}, "pool_type"),
        ("vision", {"ls_init_value": 1e-5}, "ls_init_value"),
        ("text", {"hf_model_name": "lab/bert"}, "text tower"),
        ("text", {"no_causal_mask": True}, "no_causal_mask"),
        ("model", {"init_logit_bias": -10}, "init_logit_bias"),
        ("model", {"multimodal_cfg": {"layers": 1}}, "multimodal_cfg"),
        ("preprocess", {"interpolation": "random"}, "resizes"),
        ("preprocess", {"resize_mode": "longest"}, "pads"),
    ],
)
def test_anything_else_has_none_and_the_card_says_why(part: str, change: dict[str, Any], said: str) -> None:
    parts: dict[str, Any] = {"vision": {}, "text": {}, "model": {}, "preprocess": {}, part: change}
    assert said in why_no_form(config(**parts))
