"""A dual encoder of two towers that were loaded apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn

from kdkit.plugins.loaders.text_tower import TextTower


class TwoTowers(nn.Module):
    """An image tower and a text tower; fulfils ``contracts.DualEncoder``. Move it with ``.to(device)``.

    Args:
        image: (B, 3, H, W) -> (B, D).
        text: texts -> (B, D).
        preprocess: RGB image -> (3, H, W) float32, deterministic.
        preprocessing: everything that determines ``preprocess``.
    """

    def __init__(
        self,
        image: nn.Module,
        text: TextTower,
        preprocess: Callable[[Image], Tensor],
        preprocessing: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.image, self.text = image, text
        self._preprocess, self._preprocessing = preprocess, json.dumps(preprocessing, sort_keys=True)

    @property
    def embed_dim(self) -> int:
        return int(self.text.projection.shape[0])

    @property
    def context_length(self) -> int:
        """Tokens of a text, including special ones."""
        return self.text.reading.context_length

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Tokens of each text before it is truncated, including special ones."""
        return self.text.count_tokens(texts)

    def identity(self) -> Mapping[str, str]:
        """Everything that determines the features, except the weights."""
        precision = str(self.text.projection.dtype).removeprefix("torch.")
        return {"preprocessing": self._preprocessing, **self.text.identity(), "precision": precision}

    def preprocess(self, image: Image) -> Tensor:
        """RGB image -> (3, H, W) float32, as the authors of the model prepare it."""
        return self._preprocess(image)

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D) float32, not normalized."""
        features: Tensor = self.image(pixels.to(self.text.projection))
        return features.float()

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B strings -> (B, D) float32, not normalized."""
        features: Tensor = self.text(texts)
        return features.float()
