"""Pictures and samples that find mistakes: awkward sizes, an empty text, one longer than any context."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdkit.core.contracts import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

SIZES = ((61, 47), (90, 200), (32, 32), (300, 17))
TEXTS = (
    "a chest x-ray showing a nodule",
    "",
    "an mri image of the brain showing a tumour, " * 60,
    "Zebra! 冠状面",
)


def pictures(count: int = 4, seed: int = 0) -> list[Image]:
    """RGB noise, tall, wide, small and thin; the same for the same seed."""
    from PIL import Image

    noise = random.Random(seed)
    sizes = [SIZES[number % len(SIZES)] for number in range(count)]
    return [Image.frombytes("RGB", size, noise.randbytes(size[0] * size[1] * 3)) for size in sizes]


def samples(count: int = 4, texts: Sequence[str] = TEXTS) -> list[Sample]:
    """Samples to go with :func:`pictures`; their image files do not exist."""
    return [
        Sample(
            id=f"example-{number}",
            image=Path(f"example-{number}.png"),
            text=texts[number % len(texts)],
            domain="example",
        )
        for number in range(count)
    ]
