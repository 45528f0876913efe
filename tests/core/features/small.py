"""Small indexes, images and teachers for the tests of the store and of extraction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kdkit.core.contracts import Sample
from kdkit.core.data.collect import to_table
from kdkit.core.data.digests import DigestCache, file_digest
from kdkit.core.data.entries import LoadedEntry
from kdkit.core.data.index import SampleIndex
from kdkit.core.data.load import build_index
from kdkit.core.teachers.open import OpenTeacher
from kdkit.core.teachers.signals import as_signal_source


def paint(path: Path, seed: int) -> Path:
    """A 16 x 16 picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def picture_samples(folder: Path, count: int) -> list[Sample]:
    """``count`` samples of two domains with repeating captions."""
    return [
        Sample(
            id=f"s{i:03d}",
            image=paint(folder / f"{i:03d}.png", seed=i),
            text=f"caption number {i % 5}",
            domain="ct" if i % 3 else "fundus",
            label="normal" if i % 2 else "abnormal",
        )
        for i in range(count)
    ]


def index_of(samples: Sequence[Sample], folder: Path, *, skip_unreadable: bool = False) -> SampleIndex:
    """The index of these samples; ``folder`` holds the cache of digests."""
    return build_index(
        [LoadedEntry(to_table(samples), skip_unreadable)], DigestCache(folder / "cache.arrow", file_digest)
    )


def keyed_index(keys: Sequence[tuple[str, int]]) -> SampleIndex:
    """An index of (id, content digest) without images."""
    digests = np.array([digest for _, digest in keys], dtype=np.uint64)
    return SampleIndex(
        samples=tuple(Sample(id_, Path(id_), "text", "domain") for id_, _ in keys),
        digests=digests,
        may_skip=np.zeros(len(keys), dtype=bool),
    )


def open_as(name: str, model: Any, parts: Mapping[str, str] | None = None) -> OpenTeacher:
    """``model`` as an open teacher; its fingerprint depends on its name and ``parts``."""
    parts = parts or {}
    fingerprint = sha256(repr((name, sorted(parts.items()))).encode()).hexdigest()
    return OpenTeacher(name, model, as_signal_source(model), fingerprint, parts)
