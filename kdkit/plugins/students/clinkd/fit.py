"""Whether the files of a model folder belong to one model, and a student's limits to its context."""

from __future__ import annotations

from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.plugins.students.clinkd.families.processor import FamilyProcessor
from kdkit.plugins.students.clinkd.images import ImageSettings
from kdkit.plugins.students.clinkd.settings import WHERE, Settings
from kdkit.plugins.students.clinkd.tokens import IMAGE, Tokens


def image_token_id(config: Any) -> int:
    """The id of the model's image tokens."""
    found = getattr(config, "image_token_id", None)
    return int(config.image_token_index if found is None else found)


def check_fit(network: Any, tokens: Tokens, images: ImageSettings | FamilyProcessor, settings: Settings) -> None:
    """Refuse files that are not of one model, and a context that it does not have.

    Raises:
        KdkitError: naming what does not fit.
    """
    config, text = network.config, network.config.text_config
    _require_plain_head(network, text)
    if settings.max_tokens > text.max_position_embeddings:
        what = f"max_tokens is {settings.max_tokens}, the model's context has {text.max_position_embeddings}"
        raise KdkitError("KD-STUD-044", what, where=WHERE, fix="lower max_tokens")
    if isinstance(images, ImageSettings):
        vision = config.vision_config
        pairs = {
            "patch_size": (images.patch_size, vision.patch_size),
            "merge_size": (images.merge_size, vision.spatial_merge_size),
            "temporal_patch_size": (images.temporal_patch_size, vision.temporal_patch_size),
            "id of <|image_pad|>": (tokens.id(IMAGE), config.image_token_id),
        }
        least = 0
    else:
        _check_settings(images, settings)
        least, tiles = images.least(image_token_id(config))
        pairs = {"image tokens of a small image": (tiles > 0, True)}
    for name, (prepared, wanted) in pairs.items():
        if prepared != wanted:
            raise KdkitError(
                "KD-STUD-045",
                f"{name} is {prepared} in the tokenizer or image settings, {wanted} in the model",
                where=WHERE,
                fix="take all files of the model folder from the same model",
            )
    if least >= settings.max_tokens:
        raise KdkitError(
            "KD-STUD-427",
            f"one image and a question take {least} tokens, max_tokens is {settings.max_tokens}",
            where=WHERE,
            why="no sample would fit",
            fix=f"raise max_tokens beyond {least}; the model's context has {text.max_position_embeddings}",
        )
    rows = max(text.vocab_size, network.get_input_embeddings().weight.shape[0])
    if len(tokens) > rows:
        raise KdkitError(
            "KD-STUD-046",
            f"the tokenizer has {len(tokens)} tokens, the model {rows}",
            where=WHERE,
            fix="take tokenizer and weights from the same model",
        )


def _require_plain_head(network: Any, text: Any) -> None:
    """Refuse models whose logits are more than states times the output embedding, which is all that losses compute."""
    scales = {name: getattr(text, name, None) for name in ("final_logit_softcapping", "logit_scale", "logits_scaling")}
    changed = [f"{name} {value}" for name, value in scales.items() if value not in (None, 1, 1.0)]
    if getattr(network.get_output_embeddings(), "bias", None) is not None:
        changed.append("the output layer has a bias")
    if changed:
        raise KdkitError(
            "KD-STUD-429",
            "this model changes its logits after the output embedding",
            where=f"{WHERE}.init",
            why=f"{', '.join(changed)}; kdkit's losses compute logits from states and embedding alone",
            fix="take a model whose logits are the plain product",
        )


def _check_settings(images: FamilyProcessor, settings: Settings) -> None:
    """Refuse settings that only Qwen's image sizes and towers have."""
    for name in ("min_pixels", "max_pixels", "vision_rope"):
        if getattr(settings, name) is not None:
            raise KdkitError(
                "KD-STUD-428",
                f"models of the family {images.spec.name} have no {name}",
                where=f"{WHERE}.{name}",
                why="their processor decides how images are resized and split, and their vision tower has no rotary "
                "positions that kdkit can change",
                fix=f"remove {name}",
            )
