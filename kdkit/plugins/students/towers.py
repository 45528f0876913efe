"""A dual encoder from two towers: image and text encoder of two folders, joined by open_clip.

An image tower is that of an open_clip folder, of a CLIP model of transformers or of a folder of timm; a text tower is
that of an open_clip folder or a text encoder of transformers such as BERT. Weights are copied; a projection that a
folder lacks is drawn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.plugins.loaders.hugging_face import read_tokenizer_files, without_reports
from kdkit.plugins.loaders.open_clip import load_open_clip
from kdkit.plugins.loaders.open_clip_folder import CONFIG, OpenClipParts, build_model
from kdkit.plugins.students.tower_weights import (
    clip_vision_cfg,
    clip_vision_tensors,
    is_repository,
    no_tower,
    unreadable_tower,
)

CONTEXT = 256
"""Tokens of a text of a transformers tower: that of BiomedCLIP, UniMed-CLIP and MMKD-CLIP."""
WIDTH = 512
"""Of the common space, if no tower has a projection."""
POOLING = {"cls": "cls_last_hidden_state_pooler", "mean": "mean_pooler"}
"""``text_pooling`` -> open_clip's ``hf_pooler_type``."""
PROJECTIONS = ("linear", "mlp")
_PROJECTING = ("visual.proj", "visual.head.", "text.proj", "text.text_projection")
"""Prefixes of the weights that depend on the width of the common space."""


@dataclass(frozen=True)
class Tower:
    """One tower of a folder.

    Attributes:
        cfg: open_clip's ``vision_cfg`` or ``text_cfg``.
        tensors: weights by their names in the student; frozen copies.
        embed_dim: width that its projection gives; None without one.
        quick_gelu: activation of open_clip's own transformers; None for towers that have another anyway.
        preprocess_cfg, text_config, tokenizer_files: see :class:`OpenClipParts`.
    """

    cfg: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    embed_dim: int | None
    quick_gelu: bool | None
    preprocess_cfg: Mapping[str, Any] = field(default_factory=dict)
    text_config: Mapping[str, Any] | None = None
    tokenizer_files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class TowerOptions:
    """How two towers are joined.

    Attributes:
        embed_dim: width of the common space; a projection of another width is drawn anew. By default the towers' own.
        text_pooling: ``cls`` or ``mean``; text_projection: ``mlp`` or ``linear``; of a tower of transformers.
        context_length: tokens of a text; by default 256, or the open_clip folder's own.
    """

    embed_dim: int | None = None
    text_pooling: str | None = None
    text_projection: str | None = None
    context_length: int | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the options that are set."""
        return tuple(name for name, value in vars(self).items() if value is not None)


def join_towers(
    init: Mapping[str, Any], options: TowerOptions, resolution: int | None = None
) -> tuple[OpenClipParts, nn.Module]:
    """Parts and model of a student with the weights of two towers.

    Args:
        init: ``image`` and ``text``, a folder each.
        resolution: side of the images, if it is not the image tower's.

    Raises:
        KdkitError: a folder of another kind, or towers that do not fit one another.
    """
    if set(init) != {"image", "text"} or not all(isinstance(folder, str) for folder in init.values()):
        raise KdkitError(
            "KD-STUD-058",
            "'init' is a folder, or has the keys image and text",
            where="student.config.init",
            fix="init: {image: DIR, text: DIR}",
        )
    image, text = read_image_tower(Path(init["image"])), read_text_tower(Path(init["text"]), options)
    parts = at_resolution(_parts(image, text, options), resolution)
    model = build_model(parts, where="student.config.init")
    tensors = {**image.tensors, **text.tensors}
    own = model.state_dict()
    for name in [name for name in tensors if name.startswith(_PROJECTING)]:
        if name in own and tensors[name].shape != own[name].shape:
            del tensors[name]  # _parts has checked that the option embed_dim asks for another width
    # open_clip's interpolation of position embeddings: bicubic with antialias, of the grid alone.
    from open_clip.model import resize_pos_embed

    resize_pos_embed(tensors, model)
    missing = [n for n in own if n not in tensors and not n.startswith(_PROJECTING) and n not in _LOGITS]
    unexpected = [name for name in tensors if name not in own]
    if missing or unexpected:
        raise KdkitError(
            "KD-STUD-059",
            "the towers' weights do not fit the student",
            where="student.config.init",
            why=f"missing: {', '.join(missing[:3]) or 'none'}; not known: {', '.join(unexpected[:3]) or 'none'}",
            fix="give folders of an open_clip model, a CLIPModel or a BERT of transformers, or a model of timm",
        )
    model.load_state_dict(tensors, strict=False)
    return parts, model


_LOGITS = ("logit_scale", "logit_bias")


def _parts(image: Tower, text: Tower, options: TowerOptions) -> OpenClipParts:
    widths = {width for width in (image.embed_dim, text.embed_dim) if width is not None}
    if options.embed_dim is None and len(widths) > 1:
        raise KdkitError(
            "KD-STUD-060",
            f"the image tower projects to {image.embed_dim} numbers, the text tower to {text.embed_dim}",
            where="student.config.init",
            fix=f"choose one: embed_dim: {image.embed_dim}; a projection of another width is then drawn anew",
        )
    if None not in (image.quick_gelu, text.quick_gelu) and image.quick_gelu != text.quick_gelu:
        raise KdkitError(
            "KD-STUD-061",
            "one tower has QuickGELU and the other GELU, and open_clip has one setting for both",
            where="student.config.init",
            fix="take both towers from models with the same activation",
        )
    model_cfg: dict[str, Any] = {
        "embed_dim": options.embed_dim or next(iter(widths), WIDTH),
        "vision_cfg": dict(image.cfg),
        "text_cfg": dict(text.cfg),
        "custom_text": True,
    }
    if image.quick_gelu or text.quick_gelu:
        model_cfg["quick_gelu"] = True
    return OpenClipParts(model_cfg, image.preprocess_cfg, text.text_config, text.tokenizer_files)


def at_resolution(parts: OpenClipParts, resolution: int | None) -> OpenClipParts:
    """The parts of a model for images of another side; its position embeddings follow when weights are loaded.

    Raises:
        KdkitError: not a ViT of open_clip, or a side that is no multiple of the patches'.
    """
    if resolution is None:
        return parts
    vision = dict(parts.model_cfg["vision_cfg"])
    patch, layers = vision.get("patch_size", 16), vision.get("layers", 12)
    if vision.get("timm_model_name") or not isinstance(layers, int):
        raise KdkitError(
            "KD-STUD-062",
            "the resolution of this image tower is fixed",
            where="student.config.resolution",
            why="only position embeddings of open_clip's own ViT are interpolated",
            fix="remove 'resolution', or choose another image tower",
        )
    if not isinstance(resolution, int) or resolution < patch or resolution % patch:
        near = max(patch, round(resolution / patch) * patch) if isinstance(resolution, int | float) else 14 * patch
        raise KdkitError(
            "KD-STUD-063",
            f"resolution {resolution!r} is no multiple of the patches' {patch} pixels",
            where="student.config.resolution",
            fix=f"for example resolution: {near}",
        )
    vision["image_size"] = resolution
    preprocess_cfg = {**parts.preprocess_cfg, "size": resolution}
    return replace(parts, model_cfg={**parts.model_cfg, "vision_cfg": vision}, preprocess_cfg=preprocess_cfg)


def read_image_tower(folder: Path) -> Tower:
    """The image tower of an open_clip folder, of a CLIP model of transformers or of a folder of timm.

    Raises:
        KdkitError: another kind of folder.
    """
    if (folder / CONFIG).is_file():
        encoder = load_open_clip(folder)
        cfg = dict(encoder.parts.model_cfg)
        tensors = {name: t for name, t in encoder.model.state_dict().items() if name.startswith("visual.")}
        own = None if cfg["vision_cfg"].get("timm_model_name") else bool(cfg.get("quick_gelu", False))
        return Tower(cfg["vision_cfg"], tensors, encoder.embed_dim, own, dict(encoder.preprocess_cfg))
    wanted = "an open_clip folder, a CLIP model of transformers, or a folder of timm"
    config = _config(folder, "image", wanted)
    if config.get("model_type") in ("clip", "clip_vision_model"):
        cfg, quick_gelu, width, preprocess_cfg = clip_vision_cfg(config, folder)
        return Tower(cfg, clip_vision_tensors(folder), width, quick_gelu, preprocess_cfg)
    if config.get("architecture") and not config.get("model_type"):
        return _timm(config, folder)
    raise no_tower(folder, "image", _kind(config), wanted)


def _timm(config: Mapping[str, Any], folder: Path) -> Tower:
    from kdkit.plugins.students.timm_tower import timm_tower

    cfg, tensors, preprocess_cfg = timm_tower(config, folder)
    return Tower(cfg, tensors, None, None, preprocess_cfg)


def read_text_tower(folder: Path, options: TowerOptions) -> Tower:
    """The text tower of an open_clip folder, or a text encoder of transformers.

    Raises:
        KdkitError: another kind of folder; no tokenizer; an option that an open_clip folder decides.
    """
    if (folder / CONFIG).is_file():
        if given := [name for name in options.given if name != "embed_dim"]:
            raise decided_elsewhere(given, "the open_clip folder of the text tower")
        encoder = load_open_clip(folder)
        parts, state = encoder.parts, encoder.model.state_dict()
        named = {(n if n.startswith("text.") else f"text.{n}"): t for n, t in state.items() if _of_text(n)}
        own = None if parts.text_config is not None else bool(parts.model_cfg.get("quick_gelu", False))
        files = parts.tokenizer_files
        return Tower(parts.text_cfg, named, encoder.embed_dim, own, {}, parts.text_config, files)
    from open_clip.hf_configs import arch_dict

    wanted = f"an open_clip folder, or a model of transformers of type {', '.join(arch_dict)}"
    config = _config(folder, "text", wanted)
    if config.get("model_type") not in arch_dict:
        raise no_tower(folder, "text", _kind(config), wanted)
    files = read_tokenizer_files(folder)
    if not files:
        raise KdkitError(
            "KD-STUD-065",
            "the text tower has no tokenizer",
            where=str(folder),
            code=ExitCode.MISSING,
            fix="put its tokenizer files (tokenizer.json or vocab.txt) there",
        )
    return Tower(_text_cfg(config, options, folder), _encoder_tensors(folder), None, None, {}, config, files)


def _of_text(name: str) -> bool:
    return name not in _LOGITS and not name.startswith("visual.")


def _text_cfg(config: Mapping[str, Any], options: TowerOptions, folder: Path) -> dict[str, Any]:
    pooling, projection = options.text_pooling or "cls", options.text_projection or "mlp"
    longest = int(config.get("max_position_embeddings", CONTEXT))
    length = options.context_length or min(CONTEXT, longest)
    if pooling not in POOLING or projection not in PROJECTIONS or not 0 < length <= longest:
        raise KdkitError(
            "KD-STUD-066",
            f"text_pooling {pooling!r}, text_projection {projection!r} or context_length {length!r} is not possible",
            where="student.config",
            fix=f"{' or '.join(POOLING)}; {' or '.join(PROJECTIONS)}; 1 to {longest} tokens",
        )
    if config.get("pad_token_id") is None:
        raise KdkitError(
            "KD-STUD-067",
            "the config of the text tower has no pad_token_id, so padding would count as text",
            where=str(folder / "config.json"),
            fix="add pad_token_id, the tokenizer's",
        )
    origin = str(config.get("_name_or_path", ""))
    return {
        "hf_model_name": origin if is_repository(origin) else str(config["model_type"]),
        "hf_tokenizer_name": "tokenizer-in-this-folder",
        "hf_pooler_type": POOLING[pooling],
        "hf_proj_type": projection,
        "context_length": length,
    }


def _encoder_tensors(folder: Path) -> dict[str, Tensor]:
    """Weights of a text encoder by their names in open_clip, without heads of its pretraining."""
    from transformers import AutoModel

    try:
        with torch.random.fork_rng(devices=[]), without_reports():
            model, found = AutoModel.from_pretrained(
                folder,
                add_pooling_layer=False,
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
            )
        lacking = sorted(found["missing_keys"])
    except Exception as error:  # transformers raises any error for damaged files, and for pickles that hold code
        lacking = [" ".join(str(error).split())[:300]]
    if lacking:
        raise unreadable_tower(folder, "text", lacking)
    return {f"text.transformer.{name}": tensor.detach() for name, tensor in model.state_dict().items()}


def _config(folder: Path, tower: str, wanted: str) -> dict[str, Any]:
    """The ``config.json`` of transformers in ``folder``."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise no_tower(folder, tower, f"neither {CONFIG} nor config.json can be read: {error}", wanted) from None
    return dict(found) if isinstance(found, dict) else {}


def _kind(config: Mapping[str, Any]) -> str:
    return f"its type is {config.get('model_type') or config.get('architecture') or 'unknown'}"


def decided_elsewhere(given: Sequence[str], by: str) -> KdkitError:
    """The error of options of two towers that something else decides."""
    return KdkitError(
        "KD-STUD-064",
        f"{by} decides {', '.join(given)}",
        where=f"student.config.{given[0]}",
        fix=f"remove {', '.join(given)}: of init: {{image: DIR, text: DIR}} with a text tower of transformers",
    )
