"""Models with features by formula, for the tests of evaluation tasks."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdkit.core.contracts import Sample, Split
from kdkit.core.evaluation.zero_shot import unit_rows

Array = np.ndarray[Any, Any]


class Noisy:
    """An image is the direction of its caption plus noise."""

    name = "noisy"

    def __init__(self, noise: float, width: int = 24) -> None:
        self.noise, self.width = noise, width

    def image(self, samples: Sequence[Sample]) -> Array:
        rows = [self._direction(str(s.label or s.text)) + self.noise * self._direction(str(s.image)) for s in samples]
        return unit_rows(np.stack(rows), what="image features")

    def text(self, texts: Sequence[str]) -> Array:
        return unit_rows(np.stack([self._direction(text) for text in texts]), what="texts")

    def captions(self, samples: Sequence[Sample]) -> Array:
        return self.text([sample.text for sample in samples])

    def _direction(self, text: str) -> Array:
        drawn = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(self.width)
        return np.asarray(drawn / np.linalg.norm(drawn))


def sample(name: str, text: str = "", domain: str = "ct", label: str | None = None, **more: Any) -> Sample:
    split: Split = more.pop("split", "test")
    return Sample(name, Path(more.pop("image", f"{name}.png")), text, domain, label, split, extra=more)
