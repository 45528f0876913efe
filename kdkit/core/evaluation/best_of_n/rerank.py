"""How near answers are to their image, for any dual encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
"""Cosine distance below which a text without its last word is the same to a model: it does not read so far."""


class Reranker:
    """Cosines of images and texts under one dual encoder.

    Args:
        name: of the model, for messages.
        model: moved to ``device`` where it is a module.
        device: where it runs.

    Attributes:
        unread: texts so far whose end is beyond the model's context: their scores do not know it.

    Raises:
        KdkitError: a model that is no dual encoder.
    """

    def __init__(self, name: str, model: object, *, device: str = "cpu") -> None:
        if not isinstance(model, DualEncoder):
            raise KdkitError(
                "KD-EVAL-006",
                f"teacher '{name}' cannot re-rank answers",
                why="it is no dual encoder: it has no features of images and texts that can be compared",
                fix="name a CLIP-style teacher of the registry",
            )
        if isinstance(model, nn.Module):
            model.to(device).eval()
        self.name, self._model, self._device = name, model, device
        self.unread: set[str] = set()

    def scores(self, images: Sequence[Image], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """For each image, the cosine in [-1, 1] of every one of its texts."""
        distinct = list(dict.fromkeys(text for group in texts for text in group))
        with torch.inference_mode():
            seen = self._in_parts(images, self._see)
            read = dict(zip(distinct, self._in_parts(distinct, self._read), strict=True))
            self._note_unread(read)
            return [[float(image @ read[text]) for text in group] for image, group in zip(seen, texts, strict=True)]

    def _in_parts(self, items: Sequence[object], encode: Callable[[Any], Tensor]) -> list[Tensor]:
        """Unit rows, float32 on the CPU."""
        rows: list[Tensor] = []
        for start in range(0, len(items), BATCH):
            rows += F.normalize(encode(items[start : start + BATCH]).float().cpu(), dim=-1)
        return rows

    def _see(self, images: Sequence[Image]) -> Tensor:
        pixels = torch.stack([self._model.preprocess(image) for image in images])
        return self._model.encode_image(pixels.to(self._device))

    def _read(self, texts: Sequence[str]) -> Tensor:
        return self._model.encode_text(texts)

    def _note_unread(self, read: dict[str, Tensor]) -> None:
        """The protocol tells no context length, so the model is asked whether the last word makes a difference."""
        shorter = {text: cut for text in read if (cut := text.rpartition(" ")[0])}
        rows = self._in_parts(list(shorter.values()), self._read)
        for text, row in zip(shorter, rows, strict=True):
            if float(1 - row @ read[text]) < SAME:
                self.unread.add(text)
