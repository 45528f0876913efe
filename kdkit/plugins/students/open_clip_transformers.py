"""The transformers form of a plain CLIP student: the same weights under the names of ``CLIPModel``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from kdkit.core.base.tensors import read_tensors
from kdkit.plugins.loaders.open_clip_folder import CONFIG, WEIGHTS

MODEL_CONFIG = "config.json"
"""transformers' config of the model, or of a Hugging Face text tower."""
TRANSFORMERS_WEIGHTS = "model.safetensors"
TRANSFORMERS_PROCESSOR = "preprocessor_config.json"

# What open_clip's config may say without leaving the architecture of CLIPModel (open_clip 3.3, model.py).
_VISION = {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "patch_dropout"}
_TEXT = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "hf_tokenizer_name"}
_MODEL = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale"}

_RESAMPLE = {"nearest": 0, "bilinear": 2, "bicubic": 3}
_BLOCK = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
_BLOCK |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
_PLAIN = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "logit_scale": "logit_scale",
}
_NORMS = {
    "visual.ln_pre": "vision_model.pre_layrnorm",  # spelt so in transformers
    "visual.ln_post": "vision_model.post_layernorm",
    "ln_final": "text_model.final_layer_norm",
}


def why_no_form(config: Mapping[str, Any]) -> str:
    """Why an ``open_clip_config.json`` is no plain CLIP; empty where it is one."""
    model = config["model_cfg"]
    vision, text = model["vision_cfg"], model["text_cfg"]
    if vision.get("timm_model_name"):
        return f"its image tower is timm's {vision['timm_model_name']}"
    if text.get("hf_model_name"):
        return "its text tower is a model of its own"
    if not isinstance(vision.get("layers", 12), int):
        return "its image tower is a ResNet"
    if not isinstance(vision.get("image_size", 224), int):
        return "its images are not square"
    for part, known in ((model, _MODEL), (vision, _VISION), (text, _TEXT)):
        more = sorted(key for key, value in part.items() if key not in known and value not in (None, False))
        if more:
            return f"CLIPModel knows no {', '.join(more)}"
    if config.get("preprocess_cfg", {}).get("interpolation", "bicubic") not in _RESAMPLE:
        return "it resizes images in a way that CLIPImageProcessor does not know"
    if config.get("preprocess_cfg", {}).get("resize_mode", "shortest") == "longest":
        return "it pads images, which CLIPImageProcessor does not do"
    return ""


def write_transformers_form(folder: Path) -> None:
    """Add ``config.json``, ``model.safetensors``, ``preprocessor_config.json`` and a tokenizer to an open_clip folder.

    ``folder`` holds a student for which :func:`why_no_form` is empty. The tokenizer is the student's own, or, for
    open_clip's BPE, the same vocabulary as a ``CLIPTokenizer``.
    """
    from transformers import AutoTokenizer

    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    tensors = dict(_renamed(read_tensors(folder / WEIGHTS)))
    save_file(tensors, folder / TRANSFORMERS_WEIGHTS, metadata={"format": "pt"})
    if not config["model_cfg"]["text_cfg"].get("hf_tokenizer_name"):
        _write_bpe_tokenizer(folder, context_length=config["model_cfg"]["text_cfg"].get("context_length", 77))
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(folder / MODEL_CONFIG, _model_config(config["model_cfg"], ids))
    write_json(folder / TRANSFORMERS_PROCESSOR, _image_processor(config))


def _renamed(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """open_clip's names -> those of ``CLIPModel``, after transformers' own conversion script of CLIP."""
    for key, tensor in tensors.items():
        name = key.removeprefix("text.")  # open_clip's CustomTextCLIP keeps its text tower apart
        if name in _PLAIN:
            yield _PLAIN[name], tensor.reshape(()) if name == "logit_scale" else tensor
        elif name == "visual.proj":
            yield "visual_projection.weight", tensor.T.contiguous()
        elif name == "text_projection":
            yield "text_projection.weight", tensor.T.contiguous()
        elif (norm := name.rpartition(".")[0]) in _NORMS:
            yield f"{_NORMS[norm]}.{name.rpartition('.')[2]}", tensor
        else:
            yield from _block(name, tensor)


def _block(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """One tensor of a residual block; the query, key and value of open_clip are one."""
    tower = "vision_model" if name.startswith("visual.") else "text_model"
    number, _, part = name.removeprefix("visual.").removeprefix("transformer.resblocks.").partition(".")
    prefix = f"{tower}.encoder.layers.{number}"
    if part.startswith("attn.in_proj_"):
        kind = part.removeprefix("attn.in_proj_")
        for which, third in zip("qkv", tensor.chunk(3), strict=True):
            yield f"{prefix}.self_attn.{which}_proj.{kind}", third.contiguous()
    else:
        module, _, kind = part.rpartition(".")
        yield f"{prefix}.{_BLOCK[module]}.{kind}", tensor


def _model_config(model: Mapping[str, Any], ids: Mapping[str, int | None]) -> dict[str, Any]:
    vision, text = model["vision_cfg"], model["text_cfg"]
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
    width, text_width = vision.get("width", 768), text.get("width", 512)
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": model["embed_dim"],
        "vision_config": {
            "hidden_size": width,
            "intermediate_size": int(width * vision.get("mlp_ratio", 4.0)),
            "num_hidden_layers": vision.get("layers", 12),
            "num_attention_heads": width // vision.get("head_width", 64),
            "patch_size": vision.get("patch_size", 16),
            "image_size": vision.get("image_size", 224),
            "hidden_act": activation,
            "projection_dim": model["embed_dim"],
        },
        "text_config": {
            "hidden_size": text_width,
            "intermediate_size": int(text_width * text.get("mlp_ratio", 4.0)),
            "num_hidden_layers": text.get("layers", 12),
            "num_attention_heads": text.get("heads", 8),
            "max_position_embeddings": text.get("context_length", 77),
            "vocab_size": text.get("vocab_size", 49408),
            "hidden_act": activation,
            "projection_dim": model["embed_dim"],
            **ids,
        },
        "dtype": "float32",
    }


def _image_processor(config: Mapping[str, Any]) -> dict[str, Any]:
    """open_clip's ``preprocess_cfg`` in the words of ``CLIPImageProcessor``."""
    preprocess = config.get("preprocess_cfg") or {}
    side = config["model_cfg"]["vision_cfg"].get("image_size", 224)
    square = {"height": side, "width": side}
    squash = preprocess.get("resize_mode", "shortest") == "squash"
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": square if squash else {"shortest_edge": side},
        "resample": _RESAMPLE[preprocess.get("interpolation", "bicubic")],
        "do_center_crop": not squash,
        "crop_size": square,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": preprocess.get("mean") or [0.48145466, 0.4578275, 0.40821073],
        "image_std": preprocess.get("std") or [0.26862954, 0.26130258, 0.27577711],
    }


def _write_bpe_tokenizer(folder: Path, *, context_length: int) -> None:
    """open_clip's ``SimpleTokenizer`` as the files of a ``CLIPTokenizer``."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    simple = SimpleTokenizer(context_length=context_length)
    merges = sorted(simple.bpe_ranks, key=simple.bpe_ranks.__getitem__)
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}  # the same ids by other names
    vocabulary = {special.get(token, token): index for token, index in simple.encoder.items()}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=context_length)
    tokenizer.save_pretrained(folder)


def without_origin(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the place that it was loaded from, and without code to run."""
    return {key: value for key, value in config.items() if key not in ("_name_or_path", "name_or_path", "auto_map")}


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """As transformers and open_clip lay their configs out."""
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
