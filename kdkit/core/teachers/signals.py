"""Turns any teacher into a signal source: the one interface that extraction knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kdkit.core.contracts import IMAGE, TEXT, DualEncoder, Sample, SignalSource, SignalSpec, Teacher

if TYPE_CHECKING:
    from PIL.Image import Image

TEXTS_KEPT = 65_536


class DualEncoderSignals:
    """A dual encoder's pooled features as two signals, ``image`` and ``text``, each of shape (D,), fp16.

    Captions repeat (templates), so each text is encoded once and remembered, up to ``texts_kept`` of them.
    The last bit of a text's feature may depend on the batch it is encoded in; extraction therefore calls
    :meth:`forget_texts` before every block, so that a resumed run writes the bytes of an uninterrupted one.

    Args:
        model: put into eval mode when it is an ``nn.Module``.
        texts_kept: how many text features are remembered, at most.
    """

    def __init__(self, model: DualEncoder, *, texts_kept: int = TEXTS_KEPT) -> None:
        self.model = model.eval() if isinstance(model, nn.Module) else model
        self._texts_kept = texts_kept
        self._texts: dict[str, Tensor] = {}

    @property
    def signals(self) -> tuple[SignalSpec, ...]:
        shape = (self.model.embed_dim,)
        return (SignalSpec(IMAGE, shape), SignalSpec(TEXT, shape))

    def identity(self) -> Mapping[str, str]:
        return self.model.identity()

    def prepare(self, image: Image, sample: Sample) -> tuple[Tensor, str]:
        """RGB image -> ((3, H, W) pixels, the caption)."""
        return self.model.preprocess(image), sample.text

    def compute(self, items: Sequence[tuple[Tensor, str]]) -> Mapping[str, Tensor]:
        """B items -> ``image`` (B, D) and ``text`` (B, D), on the CPU, not normalized."""
        with torch.inference_mode():
            pixels = torch.stack([pixels for pixels, _ in items]).to(self._device())
            image = self.model.encode_image(pixels)
            return {IMAGE: image.cpu(), TEXT: self._encode([text for _, text in items])}

    def forget_texts(self) -> None:
        """Drop the remembered text features."""
        self._texts.clear()

    def _encode(self, texts: Sequence[str]) -> Tensor:
        """(B, D) for B texts, computing each distinct one that is not remembered once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        found = dict(zip(new, self.model.encode_text(new).cpu(), strict=True)) if new else {}
        rows = torch.stack([found[text] if text in found else self._texts[text] for text in texts])
        for text in new[: max(0, self._texts_kept - len(self._texts))]:
            self._texts[text] = found[text]
        return rows

    def _device(self) -> torch.device:
        first = next(self.model.parameters(), None) if isinstance(self.model, nn.Module) else None
        return torch.device("cpu") if first is None else first.device


def as_signal_source(model: Teacher) -> SignalSource:
    """``model`` itself when it gives signals already, else a :class:`DualEncoderSignals` around it."""
    if isinstance(model, SignalSource):
        return model
    return DualEncoderSignals(model)
