"""The model: a folder of files becomes a dual encoder. Imported on first use."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kdkit import KdkitError
from kdkit.core.base.tensors import read_tensors
from PIL.Image import Image, Resampling
from torch import Tensor, nn

CONFIG, WEIGHTS = "kdkit_teacher_example.json", "model.safetensors"
CONTEXT = 64
"""Words of a text that are read."""


class ColorEncoder(nn.Module):
    """What a picture's mean color and the words of a text have in common; fulfils kdkit's ``DualEncoder``.

    Put your own model here. kdkit uses five members: ``embed_dim``, ``identity``, ``preprocess``,
    ``encode_image`` and ``encode_text``.

    Args:
        embed_dim: D, the width of a feature.
        image_size: pictures are scaled to this many pixels square.
        buckets: rows of the table of words.
    """

    def __init__(self, *, embed_dim: int, image_size: int, buckets: int) -> None:
        super().__init__()
        self.image_size, self.buckets = image_size, buckets
        self.image = nn.Linear(3, embed_dim)
        self.words = nn.EmbeddingBag(buckets, embed_dim, mode="mean")

    @property
    def embed_dim(self) -> int:
        return self.image.out_features

    def identity(self) -> Mapping[str, str]:
        """What changes the features besides the weights: cached features are thrown away when this changes."""
        return {
            "preprocessing": f"bilinear to {self.image_size} pixels square, [-1, 1]",
            "tokenizer": f"words, crc32 modulo {self.buckets - 1}, at most {CONTEXT}",
        }

    def preprocess(self, image: Image) -> Tensor:
        """RGB image -> (3, H, W) float32 in [-1, 1]; called from several threads."""
        square = image.resize((self.image_size, self.image_size), Resampling.BILINEAR)
        pixels = np.asarray(square, dtype=np.float32) / 127.5 - 1
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D) float32, not normalized."""
        mean = pixels.to(self.image.weight.device).mean(dim=(2, 3))
        features: Tensor = self.image(mean)
        return features.float()

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B strings -> (B, D) float32, not normalized."""
        rows = [word_ids(text, self.buckets) for text in texts]
        starts = np.cumsum([0, *map(len, rows)])[:-1]
        device = self.words.weight.device
        ids, offsets = (torch.tensor(x, device=device) for x in (np.concatenate(rows), starts))
        features: Tensor = self.words(ids, offsets)
        return features.float()


def word_ids(text: str, buckets: int) -> list[int]:
    """0 for the beginning of every text, then a row of the table for each word."""
    words = re.findall(r"\w+", text.lower())[:CONTEXT]
    return [0, *(1 + zlib.crc32(word.encode()) % (buckets - 1) for word in words)]


def load_encoder(folder: Path) -> ColorEncoder:
    """The frozen model of a folder: no network, no pickle, nothing but its files.

    Raises:
        KdkitError: when the config is not one of this architecture.
    """
    try:
        config: Any = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        with torch.random.fork_rng(devices=[]):  # building draws random numbers; loading must not move the seed
            model = ColorEncoder(**config)
        model.load_state_dict(read_tensors(folder / WEIGHTS))
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        what, where = "not a folder of this architecture", str(folder)
        raise KdkitError("EXAMPLE-001", what, where=where, why=str(error)) from error
    return model.eval().requires_grad_(False)
