"""How images are stored, and pictures that models see little of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from kdkit.core.data.check.examined import Examined
from kdkit.core.data.check.finding import Finding
from kdkit.core.data.names import count_of, name_some

SMALL = 32
"""Pixels of a side; encoders of 224 pixels enlarge such images seven times and more."""
THIN = 4.0
"""Sides of 4 : 1; a square crop of the center, as CLIP models take it, sees a quarter of the image."""
FLAT = 1.0
"""Standard deviation of the gray values of a picture that shows nothing."""


def check_storage(data: Examined) -> Iterator[Finding]:
    """Formats with their depth, and files of several frames; the items are (kind, images)."""
    facts = data.images.facts[data.readable]
    kinds = Counter(_describe(kind.decode()) for kind in facts["kind"].tolist())
    if kinds:
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        yield Finding("storage", "note", f"images: {listed}", tuple(kinds.most_common()))
    if several := int((facts["frames"] > 1).sum()):
        text = f"{count_of(several, 'image')} from files of several frames (up to {facts['frames'].max()}): one is used"
        yield Finding("storage", "note", text, (("frames", several),))
    clear = [kind for kind in kinds if "transparency" in kind]
    if clear:
        text = f"the transparency of {count_of(sum(kinds[kind] for kind in clear), 'image')} is not used"
        yield Finding("storage", "note", text, (("transparency", sum(kinds[kind] for kind in clear)),))


_MODES = {
    "1": "1 bit", "L": "8-bit gray", "LA": "8-bit gray with transparency", "P": "palette", "RGB": "8-bit color",
    "RGBA": "8-bit color with transparency", "CMYK": "8-bit CMYK", "YCbCr": "8-bit YCbCr",
}  # fmt: skip


def _describe(kind: str) -> str:
    """``JPEG L`` -> ``JPEG, 8-bit gray``."""
    name, _, mode = kind.partition(" ")
    return f"{name}, {_MODES.get(mode, mode)}"


def check_sizes(data: Examined) -> Iterator[Finding]:
    """Images that are tiny, thin, or of one gray; the items are ids."""
    facts = data.images.facts
    width, height = facts["width"].astype(np.int64), facts["height"].astype(np.int64)
    short, long = np.minimum(width, height), np.maximum(width, height)
    kinds = {
        f"with a side below {SMALL} pixels, which models see enlarged": short < SMALL,
        f"with sides of more than {THIN:g} : 1, of which a square crop sees little": long > THIN * short,
        "of one gray or color, which show nothing": facts["contrast"] < FLAT,
    }
    for words, chosen in kinds.items():
        rows = rows_of(data, chosen & data.readable)
        if rows:
            ids = [data.samples[row].id for row in rows]
            text = f"{count_of(rows, 'sample')} {words}: {name_some(ids)}"
            yield Finding("sizes", "note", text, tuple(ids), groups=tuple((row,) for row in rows[:8]))


def rows_of(data: Examined, images: NDArray[np.bool_]) -> Sequence[int]:
    """Rows of the samples with one of the (M,) images, ascending."""
    rows: list[int] = np.unique(data.pairs[images[data.pairs[:, 1]], 0]).tolist()
    return rows
