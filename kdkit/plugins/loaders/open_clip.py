"""Teachers that open_clip builds: a dual encoder from a materialized folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from open_clip.model import get_input_dtype
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL.Image import Image
from torch import Tensor, nn

from kdkit.plugins.loaders.open_clip_folder import OpenClipParts, build_model, find_weights, read_parts
from kdkit.plugins.loaders.text_tokenizer import TextTokenizer


class OpenClipEncoder(nn.Module):
    """An open_clip model with its own preprocessing and tokenizer; fulfils ``contracts.DualEncoder``.

    Move it with ``.to(device)``; inputs follow. ``encode_*`` keep no graph and expect eval mode, in which
    :func:`load_open_clip` returns it.
    """

    def __init__(self, parts: OpenClipParts, model: nn.Module, *, precision: str = "fp32") -> None:
        super().__init__()
        self.parts = parts
        self.model = model
        self.tokenizer = TextTokenizer(parts)
        visual: Any = model.visual
        self.preprocess_cfg: Mapping[str, Any] = dict(visual.preprocess_cfg)
        self._transform: Callable[[Image], Tensor] = image_transform_v2(
            PreprocessCfg(**self.preprocess_cfg), is_train=False
        )
        self._input_dtype: torch.dtype = get_input_dtype(precision) or torch.float32

    @property
    def embed_dim(self) -> int:
        return int(self.parts.model_cfg["embed_dim"])

    def identity(self) -> Mapping[str, str]:
        """What changes the features besides the weights."""
        precision = str(self._input_dtype).removeprefix("torch.")
        return {
            "preprocessing": "open_clip " + json.dumps(self.preprocess_cfg, sort_keys=True),
            "tokenizer": self.tokenizer.identity(),
            "precision": precision,
        }

    def preprocess(self, image: Image) -> Tensor:
        """RGB image -> (3, H, W) float32 by the model's own evaluation transform."""
        return self._transform(image)

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D) float32, not normalized."""
        device = next(self.model.parameters()).device
        return self.image_features(pixels.to(device, self._input_dtype)).float()

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B strings -> (B, D) float32, not normalized; longer texts are truncated at the context length."""
        device = next(self.model.parameters()).device
        return self.text_features(self.tokenizer(texts).to(device)).float()

    def image_features(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D), with the graph."""
        features: Tensor = self.model.encode_image(pixels)  # type: ignore[operator]
        return features

    def text_features(self, tokens: Tensor) -> Tensor:
        """(B, L) int64 -> (B, D), with the graph."""
        features: Tensor = self.model.encode_text(tokens)  # type: ignore[operator]
        return features


def load_open_clip(
    folder: Path, *, precision: str = "fp32", weights: str | None = None, arch: str | None = None
) -> OpenClipEncoder:
    """A frozen teacher from a folder, offline and strictly.

    Args:
        folder: ``open_clip_config.json``, weights and tokenizer files; a Hugging Face text tower's config in
            ``text/``.
        precision: open_clip's name of a precision; features are float32 in any case.
        weights: the weights' file name, where it is not one of the usual.
        arch: a built-in open_clip architecture, for a folder that holds only weights.

    Raises:
        KdkitError: when the folder is incomplete, or its weights do not fit exactly.
    """
    folder = Path(folder)
    parts = read_parts(folder, arch=arch)
    with torch.random.fork_rng(devices=[]):  # building draws random weights; loading must not move the seed
        model = build_model(parts, find_weights(folder, weights), precision=precision, where=str(folder))
    encoder = OpenClipEncoder(parts, model, precision=precision)
    return encoder.requires_grad_(False).eval()
