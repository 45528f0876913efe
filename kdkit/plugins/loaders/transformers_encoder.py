"""CLIP-style models of transformers as dual encoders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn

from kdkit.plugins.loaders.hugging_face import count_tokens

READS_PADDING = ("siglip", "siglip2")
"""Model types that were trained with padding as ordinary tokens: they get no attention mask, all others do. What the
tokenizer returns by default differs between checkpoints of one family."""
SIGLIP2_TOKENIZER = "Gemma"
"""SigLIP 2 was trained on lowercase texts (arXiv:2502.14786; huggingface/transformers#43101). Its models of one image
size have the type and the code of SigLIP, but this tokenizer, which keeps capitals."""


class TransformersEncoder(nn.Module):
    """A CLIP-style model of transformers; fulfils ``contracts.DualEncoder``. Move it with ``.to(device)``.

    With ``interpolate``, position embeddings are interpolated to the size of the images.
    """

    def __init__(
        self,
        model: nn.Module,
        image_processor: Any,
        tokenizer: Any,
        tokenizer_digest: str,
        *,
        interpolate: bool = False,
    ) -> None:
        super().__init__()
        self._image_options = {"interpolate_pos_encoding": True} if interpolate else {}
        self.model = model
        self._image_processor, self._tokenizer = image_processor, tokenizer
        self._tokenizer_digest = tokenizer_digest
        config: Any = model.config
        self._lowercase = config.model_type == "siglip" and type(tokenizer).__name__.startswith(SIGLIP2_TOKENIZER)
        self._text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
        self._lock = Lock()

    @property
    def context_length(self) -> int:
        """Tokens of a text, including special ones: the limit of both the positions and the tokenizer."""
        positions = getattr(self._text_config, "max_position_embeddings", None)
        lengths = [int(n) for n in (positions, self._tokenizer.model_max_length) if n]
        return min(lengths)

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Tokens of each text before it is truncated, including special ones."""
        return count_tokens(self._tokenizer, [text.lower() if self._lowercase else text for text in texts], self._lock)

    @property
    def embed_dim(self) -> int:
        config: Any = self.model.config
        width = getattr(config, "projection_dim", None)
        if width is None:  # SigLIP projects inside the towers
            width = getattr(self._text_config, "projection_size", None) or config.vision_config.hidden_size
        return int(width)

    def identity(self) -> Mapping[str, str]:
        """Everything that determines the features, except the weights."""
        settings = json.dumps(self._image_processor.to_dict(), sort_keys=True, default=str)
        return {
            "preprocessing": f"{type(self._image_processor).__name__} {settings}",
            "tokenizer": f"{self._tokenizer_digest} context {self.context_length}" + " lowercase" * self._lowercase,
            "precision": str(next(self.model.parameters()).dtype).removeprefix("torch."),
        }

    def preprocess(self, image: Image) -> Tensor:
        """RGB image -> (3, H, W) float32 by the model's own image processor."""
        pixels: Tensor = self._image_processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels.float()

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D) float32, not normalized."""
        like = next(self.model.parameters())
        return pooled(self.model.get_image_features(pixels.to(like), **self._image_options))  # type: ignore[operator]

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B strings -> (B, D) float32, not normalized.

        Texts are padded to the context length, as SigLIP was trained; with a mask it changes nothing.
        """
        masked = getattr(self.model.config, "model_type", "") not in READS_PADDING
        with self._lock:  # truncation and padding are set on the shared tokenizer
            tokens = self._tokenizer(
                [text.lower() if self._lowercase else text for text in texts],
                padding="max_length",
                truncation=True,
                max_length=self.context_length,
                return_attention_mask=masked,
                return_tensors="pt",
            )
        device = next(self.model.parameters()).device
        names = ("input_ids", "attention_mask") if masked else ("input_ids",)
        inputs = {name: tokens[name].to(device) for name in names}
        return pooled(self.model.get_text_features(**inputs))  # type: ignore[operator]


def pooled(output: Any) -> Tensor:
    """The features: transformers 4 returns them, 5 returns an output with ``pooler_output``."""
    features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return features.float()
