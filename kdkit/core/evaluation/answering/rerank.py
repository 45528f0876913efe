"""Similarity of answers to their image, for any dual encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import DualEncoder

if TYPE_CHECKING:
    from PIL.Image import Image

BATCH = 64
SAME = 1e-6
"""Cosine distance below which a text equals the same text without its last word: the model truncates it."""


class Reranker:
    """Cosines of images and texts under one dual encoder.

    Args:
        name: of the model, for messages.
        model: moved to ``device`` if it is a module.

    Raises:
        KdkitError: when ``model`` is not a dual encoder.
    """

    def __init__(self, name: str, model: object, device: str = "cpu") -> None:
        if not isinstance(model, DualEncoder):
            raise KdkitError(
                "KD-EVAL-006",
                f"teacher '{name}' cannot re-rank answers",
                why="it is not a dual encoder: it has no features of images and texts to compare",
                fix="name a CLIP-style teacher of the registry",
            )
        if isinstance(model, nn.Module):
            model.to(device).eval()
        self.name, self._model, self._device = name, model, device

    def score(self, images: Sequence[Image], texts: Sequence[Sequence[str]]) -> tuple[list[list[float]], set[str]]:
        """For each image, the cosine in [-1, 1] of every one of its texts; and the texts that the model truncates."""
        distinct = list(dict.fromkeys(text for group in texts for text in group))
        with torch.inference_mode():
            image_rows = self._encode(images, self._encode_images)
            text_rows = dict(zip(distinct, self._encode(distinct, self._model.encode_text), strict=True))
            cosines = [
                [float(row @ text_rows[text]) for text in group] for row, group in zip(image_rows, texts, strict=True)
            ]
            return cosines, set(self._truncated(text_rows))

    def _encode(self, items: Sequence[object], encode: Callable[[Any], Tensor]) -> list[Tensor]:
        """Unit rows, float32 on the CPU."""
        rows: list[Tensor] = []
        for start in range(0, len(items), BATCH):
            rows += F.normalize(encode(items[start : start + BATCH]).float().cpu(), dim=-1)
        return rows

    def _encode_images(self, images: Sequence[Image]) -> Tensor:
        pixels = torch.stack([self._model.preprocess(image) for image in images])
        return self._model.encode_image(pixels.to(self._device))

    def _truncated(self, text_rows: dict[str, Tensor]) -> Iterable[str]:
        """Texts whose last word makes no difference: the protocol has no context length to compare with."""
        shorter = {text: cut for text in text_rows if (cut := text.rpartition(" ")[0])}
        rows = self._encode(list(shorter.values()), self._model.encode_text)
        return (text for text, row in zip(shorter, rows, strict=True) if float(1 - row @ text_rows[text]) < SAME)
