"""Adapts any teacher to :class:`SignalSource`, the interface of extraction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdkit.core.contracts import IMAGE, TEXT, DualEncoder, Sample, SignalSource, SignalSpec, Teacher, TextEncoder

if TYPE_CHECKING:
    from PIL.Image import Image

TEXTS_KEPT = 65_536


class TextSignals:
    """A text encoder's features as the signal ``text`` of shape (D,), fp16.

    Captions repeat, so up to ``texts_kept`` text features are cached. The last bit of a text's feature may depend on
    its batch. Extraction therefore calls :meth:`forget_texts` before every block, so that a resumed run writes the
    bytes of an uninterrupted one.

    Args:
        model: put into eval mode when it is an ``nn.Module``.
        texts_kept: size of the cache.
    """

    def __init__(self, model: TextEncoder, *, texts_kept: int = TEXTS_KEPT) -> None:
        self.model: TextEncoder = model.eval() if isinstance(model, nn.Module) else model
        self._texts_kept = texts_kept
        self._texts: dict[str, Tensor] = {}

    @property
    def signals(self) -> tuple[SignalSpec, ...]:
        return (SignalSpec(TEXT, (self.model.embed_dim,)),)

    def identity(self) -> Mapping[str, str]:
        return self.model.identity()

    def prepare(self, image: Image, sample: Sample) -> Any:
        """The caption; the image is not read."""
        del image
        return sample.text

    def compute(self, items: Sequence[Any]) -> Mapping[str, Tensor]:
        """B captions -> ``text`` (B, D), on the CPU, not normalized."""
        with torch.inference_mode():
            return {TEXT: self._encode(items)}

    def forget_texts(self) -> None:
        """Empty the cache of text features."""
        self._texts.clear()

    def _encode(self, texts: Sequence[str]) -> Tensor:
        """(B, D) for B texts; each distinct text that is not cached is computed once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        found = dict(zip(new, self.model.encode_text(new).cpu(), strict=True)) if new else {}
        rows = torch.stack([found[text] if text in found else self._texts[text] for text in texts])
        for text in new[: max(0, self._texts_kept - len(self._texts))]:
            self._texts[text] = found[text]
        return rows


class DualEncoderSignals(TextSignals):
    """A dual encoder's pooled features as two signals, ``image`` and ``text``, each of shape (D,), fp16.

    Args:
        model, texts_kept: as of :class:`TextSignals`.
    """

    model: DualEncoder

    def __init__(self, model: DualEncoder, *, texts_kept: int = TEXTS_KEPT) -> None:
        super().__init__(model, texts_kept=texts_kept)

    @property
    def signals(self) -> tuple[SignalSpec, ...]:
        shape = (self.model.embed_dim,)
        return (SignalSpec(IMAGE, shape), SignalSpec(TEXT, shape))

    def prepare(self, image: Image, sample: Sample) -> tuple[Tensor, str]:
        """RGB image -> ((3, H, W) pixels, the caption)."""
        return self.model.preprocess(image), sample.text

    def compute(self, items: Sequence[tuple[Tensor, str]]) -> Mapping[str, Tensor]:
        """B items -> ``image`` (B, D) and ``text`` (B, D), on the CPU, not normalized."""
        with torch.inference_mode():
            pixels = torch.stack([pixels for pixels, _ in items]).to(self._device())
            image = self.model.encode_image(pixels)
            return {IMAGE: image.cpu(), TEXT: self._encode([text for _, text in items])}

    def _device(self) -> torch.device:
        first = next(self.model.parameters(), None) if isinstance(self.model, nn.Module) else None
        return torch.device("cpu") if first is None else first.device


def as_signal_source(model: Teacher) -> SignalSource:
    """``model`` itself if it is a signal source, else signals of its features."""
    if isinstance(model, SignalSource):
        return model
    return DualEncoderSignals(model) if isinstance(model, DualEncoder) else TextSignals(model)
