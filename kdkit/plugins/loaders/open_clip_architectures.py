"""Which built-in architectures of open_clip fit weights that come without a config, by the weights' shapes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import isqrt
from typing import Any, NamedTuple

from open_clip import get_model_config, list_models

from kdkit.core.base.errors import KdkitError
from kdkit.plugins.loaders.layouts import Shapes

OPENAI_SIZES = ("input_resolution", "context_length", "vocab_size")
"""Buffers in OpenAI's own archives, which hold sizes."""
_TOP = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}
_VISION = {"image_size", "layers", "width", "head_width", "patch_size"}
_TEXT = {"context_length", "vocab_size", "width", "heads", "layers"}
"""Keys of a config whose model has the weights of OpenAI's CLIP, and no others."""
_RESNET_CELL = 32
"""Pixels per cell of the last stage's grid."""


class Sizes(NamedTuple):
    """What the shapes of a CLIP's weights show; two architectures with the same sizes have the same weights."""

    features: int
    image: tuple[int, int, int | tuple[int, ...], int | None]
    """Pixels, width, layers (of a ResNet: per stage), pixels of a patch (of a ResNet: None)."""
    text: tuple[int, int, int, int]
    """Tokens, vocabulary, width, layers."""

    def __str__(self) -> str:
        pixels, width, layers, patch = self.image
        image = f"a ViT of width {width} with {layers} layers, patches of {patch}" if patch else f"a ResNet {layers}"
        tokens, vocabulary, text_width, text_layers = self.text
        text = f"texts of {tokens} tokens of {vocabulary}, width {text_width}, {text_layers} layers"
        return f"{image}, {pixels} pixels; {text}; {self.features} features"


def sizes_of_weights(shapes: Shapes) -> Sizes | None:
    """The sizes of weights with OpenAI's or open_clip's names; None for other weights."""
    shapes = {name.removeprefix("text."): shape for name, shape in shapes.items()}
    try:
        features = shapes["text_projection"][1]
        tokens, text_width = shapes["positional_embedding"]
        vocabulary = shapes["token_embedding.weight"][0]
        text = (tokens, vocabulary, text_width, _layers(shapes, "transformer.resblocks."))
        if "visual.proj" in shapes:
            width, _, patch, _ = shapes["visual.conv1.weight"]
            pixels = isqrt(shapes["visual.positional_embedding"][0] - 1) * patch
            return Sizes(features, (pixels, width, _layers(shapes, "visual.transformer.resblocks."), patch), text)
        pixels = isqrt(shapes["visual.attnpool.positional_embedding"][0] - 1) * _RESNET_CELL
        stages = tuple(_layers(shapes, f"visual.layer{stage}.") for stage in range(1, 5))
        return Sizes(features, (pixels, shapes["visual.layer1.0.conv1.weight"][0], stages, None), text)
    except (KeyError, ValueError, IndexError):
        return None


def matching_architectures(sizes: Sizes) -> list[str]:
    """Names of open_clip's architectures with these sizes; they differ in the activation alone."""
    return [name for name in list_models() if _sizes_of_config(get_model_config(name) or {}) == sizes]


def find_architecture(shapes: Shapes, where: str) -> str | None:
    """The only architecture that the weights fit; None if they are no CLIP with OpenAI's names.

    Raises:
        KdkitError: no architecture fits, or several do.
    """
    sizes = sizes_of_weights(shapes)
    if sizes is None:
        return None
    names = matching_architectures(sizes)
    if not names:
        raise KdkitError(
            "KD-LOAD-100",
            "these weights come without a config, and fit no architecture that open_clip ships",
            where=where,
            why=f"they are {sizes}",
            fix="put the model_cfg of their authors beside them, as open_clip_config.json",
        )
    quick = [name for name in names if (get_model_config(name) or {}).get("quick_gelu")]
    if _is_openai(shapes) and len(quick) == 1:
        return quick[0]
    if len(names) > 1:
        raise KdkitError(
            "KD-LOAD-101",
            f"these weights fit {' and '.join(names)}, which differ in the activation alone",
            where=where,
            why="models of OpenAI and most that were trained further from them are -quickgelu; the authors' code says",
            fix=f"choose one: --option arch={(quick or names)[0]}",
        )
    return names[0]


def _is_openai(names: Collection[str]) -> bool:
    return all(name in names for name in OPENAI_SIZES)


def _layers(shapes: Shapes, prefix: str) -> int:
    return len({name.removeprefix(prefix).partition(".")[0] for name in shapes if name.startswith(prefix)})


def _sizes_of_config(config: Mapping[str, Any]) -> Sizes | None:
    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    if not (config and config.keys() <= _TOP and vision.keys() <= _VISION and text.keys() <= _TEXT):
        return None
    layers = vision["layers"]
    return Sizes(
        config["embed_dim"],
        (
            vision["image_size"],
            vision["width"],
            tuple(layers) if isinstance(layers, list) else layers,
            vision.get("patch_size"),
        ),
        (text["context_length"], text["vocab_size"], text["width"], text["layers"]),
    )
