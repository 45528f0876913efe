"""Where a slide has tissue: Otsu's threshold on the saturation of a small picture of it.

As in CLAM (Lu et al., Nature Biomedical Engineering 5, 2021), without its contours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from kdkit.plugins.readers.wsi_files import read_region

LEAST = 8
"""The smallest threshold, CLAM's own one: a slide of glass alone has no tissue, whatever Otsu makes of its noise."""
DARK = 26
"""A tenth of the range: nearly black pixels, of borders and pen marks, may have any saturation."""
SMOOTH = 5
"""Pixels of the median filter."""
STRIP_PIXELS = 2**24
MAX_PIXELS = 2**32
"""Pixels of the level that is read."""


@dataclass(frozen=True)
class TissueMask:
    """A mask of a slide.

    Attributes:
        tissue: (H, W) bool.
        scale: pixels of level 0 per pixel of the mask.
    """

    tissue: NDArray[np.bool_]
    scale: float

    def shares(self, corners: NDArray[np.int64], side: float) -> NDArray[np.float64]:
        """(N,) the share of tissue, 0 to 1, in squares with these upper left corners.

        Args:
            corners: (N, 2) x and y in pixels of level 0.
            side: of the squares, in pixels of level 0.
        """
        height, width = self.tissue.shape
        sums = np.zeros((height + 1, width + 1), dtype=np.int64)
        sums[1:, 1:] = self.tissue.cumsum(0, dtype=np.int64).cumsum(1)
        limits = np.array([width, height])
        starts = np.minimum(np.rint(corners / self.scale).astype(np.int64), limits - 1)
        ends = np.clip(np.rint((corners + side) / self.scale).astype(np.int64), starts + 1, limits)
        (x0, y0), (x1, y1) = starts.T, ends.T
        inside = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
        found: NDArray[np.float64] = inside / ((x1 - x0) * (y1 - y0))
        return found


def find_tissue(slide: Any, scale: float) -> TissueMask | None:
    """The mask; None if the slide has no level that is small enough to look at.

    Args:
        slide: an OpenSlide object.
        scale: pixels of level 0 per pixel of the mask, about.

    Raises:
        KdkitError: damaged pixels.
    """
    level = max(n for n, one in enumerate(slide.level_downsamples) if n == 0 or one <= scale)
    width, height = slide.level_dimensions[level]
    if width * height > MAX_PIXELS:
        return None
    down = slide.level_downsamples[level]
    factor = max(1, int(scale / down))
    rows = factor * max(1, STRIP_PIXELS // (width * factor))
    parts = []
    for top in range(0, height, rows):
        strip = read_region(slide, 0, round(top * down), level, (width, min(rows, height - top)))
        parts.append(saturation(strip.reduce(factor)))
    picture = Image.fromarray(np.concatenate(parts)).filter(ImageFilter.MedianFilter(SMOOTH))
    values = np.asarray(picture)
    threshold = max(LEAST, otsu_threshold(np.bincount(values.ravel(), minlength=256)))
    return TissueMask(values > threshold, factor * down)


def saturation(picture: Image.Image) -> NDArray[np.uint8]:
    """(H, W) saturation in HSV, 0 to 255; 0 where a pixel is nearly black."""
    _, colors, values = picture.convert("HSV").split()
    return np.where(np.asarray(values) < DARK, 0, np.asarray(colors)).astype(np.uint8)


def otsu_threshold(counts: NDArray[np.int64]) -> int:
    """The threshold t that separates values <= t from values > t with the largest variance between both.

    N. Otsu, A Threshold Selection Method from Gray-Level Histograms, IEEE Trans. SMC 9 (1979), equation 18.

    Args:
        counts: (256,) number of pixels of each value.
    """
    total = counts.sum()
    below = counts.cumsum() / total
    mean = (counts * np.arange(256)).cumsum() / total
    spread = below * (1 - below)
    variance = np.divide((mean[-1] * below - mean) ** 2, spread, out=np.zeros(256), where=spread > 0)
    return int(variance.argmax())
