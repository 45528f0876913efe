"""The families that kdkit knows, and what it says of others.

Read from transformers 5.24: class names, processors, image arguments and position ids of each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.plugins.loaders.model_types import needs_own_code
from kdkit.plugins.students.clinkd.families.spec import FamilySpec

_QWEN: dict[str, Any] = {"reader": "chatml", "end": "<|im_end|>", "vision": "visual", "cells": "grids"}
_SYSTEM = "You are a helpful assistant."
_IDEFICS: dict[str, Any] = {
    "end": "<end_of_utterance>",
    "tensors": {"pixel_values": ("sample", "all tiles"), "pixel_attention_mask": ("sample", "all tiles")},
    "tiles": "splits",
    "real": "pixel_attention_mask",
    "language": "text_model",
    "vision": "vision_model",
}

SPECS = (
    FamilySpec(
        name="qwen2_vl",
        summary="Qwen2-VL",
        positions="sections",
        boxes="qwen2-vl",
        system=_SYSTEM,
        trained=("merger.",),
        **_QWEN,
    ),
    FamilySpec(
        name="qwen2_5_vl",
        summary="Qwen2.5-VL",
        positions="sections",
        boxes="qwen2.5-vl",
        system=_SYSTEM,
        trained=("merger.",),
        **_QWEN,
    ),
    FamilySpec(
        name="qwen3_vl",
        summary="Qwen3-VL, dense models",
        positions="interleaved",
        boxes="qwen3-vl",
        answers="images",  # its vision tower also feeds the first layers of the language tower
        trained=("merger.", "deepstack_merger_list."),
        **_QWEN,
    ),
    FamilySpec(
        name="gemma3",
        summary="Gemma 3, MedGemma",
        end="<end_of_turn>",
        tensors={"pixel_values": ("all tiles",)},
        tiles="crops",
        token_types=True,
        cells="square",
        answers="images",  # its generate takes no embeddings
    ),
    FamilySpec(
        name="llava_onevision",
        summary="LLaVA-OneVision",
        end="<|im_end|>",
        tensors={"pixel_values": ("images", "tiles"), "image_sizes": ("images",), "batch_num_images": ("sample",)},
        tiles="pinpoints",
    ),
    FamilySpec(
        name="llava_next",
        summary="LLaVA-NeXT (1.6)",
        tensors={"pixel_values": ("images", "tiles"), "image_sizes": ("images",)},
        tiles="pinpoints",
    ),
    FamilySpec(name="llava", summary="LLaVA 1.5 with a CLIP or SigLIP tower", tensors={"pixel_values": ("images",)}),
    FamilySpec(name="smolvlm", summary="SmolVLM2", **_IDEFICS),
    FamilySpec(name="idefics3", summary="SmolVLM, Idefics3", **_IDEFICS),
    FamilySpec(
        name="internvl",
        summary="InternVL 2.5, 3 and 3.5 in transformers' form (repositories that end in -HF)",
        boxes="internvl",
        end="<|im_end|>",
        tensors={"pixel_values": ("all tiles",)},
        tiles="patches",
    ),
    FamilySpec(
        name="mllama",
        summary="Llama 3.2 Vision",
        end="<|eot_id|>",
        tensors={
            "pixel_values": ("sample", "images"),
            "aspect_ratio_ids": ("sample", "images"),
            "aspect_ratio_mask": ("sample", "images"),
            "cross_attention_mask": ("sample", "tokens", "images"),
        },
        real="aspect_ratio_mask",
        answers="images",
        unpacked="its language tower attends to the images of a whole row (cross attention)",
        vision="vision_model",
    ),
)
FAMILIES: Mapping[str, FamilySpec] = {spec.name: spec for spec in SPECS}
"""``model_type`` -> family."""
NEEDS = "reader, positions, boxes, end, tensors, tiles, language, vision"
"""Fields of a spec that differ among families, for the error of an unknown one."""


def find_family(folder: Path, families: Mapping[str, FamilySpec] = FAMILIES) -> FamilySpec:
    """The family of the model in ``folder``, by the ``model_type`` of its ``config.json``.

    Raises:
        KdkitError: a family that is not known, with what it has in common with known ones; a model with own code.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise KdkitError(
            "KD-STUD-026",
            "config.json cannot be read",
            where=str(path),
            why=str(error),
            fix="fetch the file again from the model's repository",
        ) from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if isinstance(kind, str) and kind in families:
        return families[kind]
    if isinstance(config, dict) and "auto_map" in config:
        raise needs_own_code(folder)
    raise KdkitError(
        "KD-STUD-420",
        f"kdkit does not know the family '{kind}'" if kind else "this model has no type",
        where=str(path),
        why="; ".join(
            [f"model_type is {json.dumps(kind)}", *in_common(config, families), f"known are {', '.join(families)}"]
        ),
        fix=f"name a model of a known family, or write a FamilySpec ({NEEDS}): docs/reference/families.md",
    )


def in_common(config: Any, families: Mapping[str, FamilySpec]) -> list[str]:
    """What an unknown model shares with known families: its class, its towers, its positions."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as CLASSES

    config = config if isinstance(config, dict) else {}
    kind = str(config.get("model_type"))
    found = [
        f"transformers opens it as {CLASSES[kind]}, as it does the known ones"
        if kind in CLASSES
        else "transformers has no image-text-to-text model of this type"
    ]
    towers = {name: config.get(name) for name in ("text_config", "vision_config")}
    named = [f"{name} {x['model_type']}" for name, x in towers.items() if isinstance(x, dict) and "model_type" in x]
    found += [f"its towers are {' and '.join(named)}"] if named else []
    if "mrope_section" in json.dumps(config):
        alike = [spec.name for spec in families.values() if spec.positions != "index"]
        found.append(f"its positions are time, row and column, as of {', '.join(alike)}")
    elif isinstance(towers["text_config"], dict):
        alike = [spec.name for spec in families.values() if spec.positions == "index"]
        found.append(f"its positions are probably one number for each token, as of {', '.join(alike)}")
    return found
