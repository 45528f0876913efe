"""Dual encoders as signal sources."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from kdkit.core.contracts import Sample, SignalSource
from kdkit.core.teachers.signals import DualEncoderSignals, as_signal_source
from tests.core.features.extract.test_extraction import TopAnswers
from tests.toys import ToyEncoder


class Recording(ToyEncoder):
    """Records the texts that it encodes."""

    def __init__(self) -> None:
        super().__init__(4, dropout=0.5)
        self.encoded: list[list[str]] = []

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        self.encoded.append(list(texts))
        return super().encode_text(texts)


def items(source: DualEncoderSignals, texts: Sequence[str]) -> list[tuple[Tensor, str]]:
    image = Image.new("RGB", (9, 9), (10, 20, 30))
    return [source.prepare(image, Sample("s", Path("s.png"), text, "domain")) for text in texts]


def test_a_signal_source_is_returned_unchanged() -> None:
    source = TopAnswers()
    assert as_signal_source(source) is source


def test_text_features_are_cached() -> None:
    model = Recording()
    source = DualEncoderSignals(model, texts_kept=3)
    assert isinstance(source, SignalSource)
    assert [(s.name, s.shape, s.dtype) for s in source.signals] == [
        ("image", (4,), "float16"),
        ("text", (4,), "float16"),
    ]
    texts = ["a", "bb", "a", "ccc", "dddd", "bb"]
    computed = source.compute(items(source, texts))
    assert model.encoded == [["a", "bb", "ccc", "dddd"]]
    assert not computed["text"].requires_grad
    torch.testing.assert_close(computed["text"], model.eval().encode_text(texts).detach())
    torch.testing.assert_close(
        computed["image"],
        model.encode_image(torch.stack([model.preprocess(Image.new("RGB", (9, 9), (10, 20, 30)))] * 6)).detach(),
    )
    model.encoded.clear()
    again = source.compute(items(source, ["dddd", "a", "ccc"]))
    assert model.encoded == [["dddd"]]  # only three are kept
    assert torch.equal(again["text"][1:], computed["text"][[0, 3]])
    source.forget_texts()
    source.compute(items(source, ["a"]))
    assert model.encoded[-1] == ["a"]
