"""Tiles of a slide: a grid at a resolution, where there is tissue."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Skipped
from kdkit.plugins.readers.wsi import MAX_SIDE
from kdkit.plugins.readers.wsi_files import open_slide
from kdkit.plugins.sources.wsi_tissue import find_tissue

TILE, MPP, TISSUE = 256, 0.5, 0.5
"""Defaults: pixels of a side, microns per pixel (20x), share of tissue."""
CLOSE = 0.02
"""A level whose resolution differs by so little from the one asked for is read as it is."""
MICRONS = (0.02, 20.0)
"""Sizes of pixels that slides have; 72 dpi, which programs write by default, are 353."""
TEN = 10.0
"""Microns per pixel times magnification, as scanners name it: 0.5 is 20x."""
MASK_SIDE = 16
"""Pixels of the tissue mask for the side of a tile."""
MAX_TILES = 10_000_000
"""Of a slide."""


@dataclass(frozen=True)
class TilePlan:
    """How slides become tiles.

    Attributes:
        side: pixels of a tile's side.
        mpp, magnification: the resolution; one of both.
        least: share of tissue that a tile needs; 0 takes all.
        slide_mpp: microns per pixel of slides that do not say it.
    """

    side: int
    mpp: float | None
    magnification: float | None
    least: float
    slide_mpp: float | None

    @classmethod
    def of(
        cls,
        where: str,
        tile_size: int | None,
        mpp: float | None,
        magnification: float | None,
        min_tissue: float | None,
        slide_mpp: float | None,
    ) -> TilePlan:
        """The plan of options, of which None is the default.

        Raises:
            KdkitError: two resolutions, or a number that is out of range.
        """
        if mpp is not None and magnification is not None:
            raise KdkitError("KD-SRC-345", "mpp and magnification exclude each other", where=where, fix="remove one")
        side = TILE if tile_size is None else tile_size
        least = TISSUE if min_tissue is None else min_tissue
        ranges = {
            "tile_size": (tile_size, 1, MAX_SIDE),
            "mpp": (mpp, *MICRONS),
            "magnification": (magnification, TEN / MICRONS[1], TEN / MICRONS[0]),
            "min_tissue": (min_tissue, 0, 1),
            "slide_mpp": (slide_mpp, *MICRONS),
        }
        for name, (value, low, high) in ranges.items():
            if value is not None and not low <= value <= high:
                raise KdkitError(
                    "KD-SRC-346", f"{name} is {value}", where=where, fix=f"give a number from {low:g} to {high:g}"
                )
        return cls(side, mpp or (None if magnification else MPP), magnification, least, slide_mpp)

    def as_json(self) -> dict[str, Any]:
        """All that decides the tiles of a slide."""
        return asdict(self)


@dataclass(frozen=True)
class Tiles:
    """N tiles of a slide.

    Attributes:
        level, read, side: the level that is read, pixels of a side there, and pixels of a side of the tile.
        corners: (N, 2) int64; x and y in pixels of level 0.
    """

    level: int
    read: int
    side: int
    corners: NDArray[np.int64]


class Unusable(Exception):
    """A slide without tiles; holds what is reported of it."""

    def __init__(self, skipped: Skipped) -> None:
        self.skipped = skipped
        super().__init__(skipped.what)


def cut_into_tiles(path: Path, plan: TilePlan) -> Tiles:
    """The tiles of a grid from the upper left corner that lie in the slide as a whole, with enough tissue.

    Raises:
        Unusable: the slide cannot be opened or has no such tile.
        KdkitError: OpenSlide is not installed.
    """
    slide = opened(path)
    where, down = str(path), _downsample(slide, plan, str(path))
    level, read = choose_level(slide, down, plan.side)
    span = read * slide.level_downsamples[level]
    columns, rows = (int(size / span + 1e-6) for size in slide.dimensions)
    if columns * rows > MAX_TILES:
        fix = f"choose larger tiles or another resolution: this grid has {columns} x {rows} tiles"
        raise Unusable(Skipped("slides with too many tiles", where, fix))
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    corners = np.floor(np.stack([x.ravel(), y.ravel()], axis=1) * span).astype(np.int64)
    if plan.least > 0 and len(corners):
        try:
            mask = find_tissue(slide, span / MASK_SIDE)
        except KdkitError:
            raise Unusable(Skipped("slides with damaged pixels", where, "copy them again, or remove them")) from None
        if mask is None:
            fix = "convert them to pyramids (vips tiffsave --tile --pyramid), or set min_tissue: 0"
            raise Unusable(Skipped("slides without a small level to look for tissue", where, fix))
        corners = corners[mask.shares(corners, span) >= plan.least]
    if not len(corners):
        fix = "choose smaller tiles, or a smaller min_tissue"
        raise Unusable(Skipped("slides without a tile of enough tissue", where, fix, level="warning"))
    return Tiles(level, read, plan.side, corners)


def opened(path: Path) -> Any:
    """The slide.

    Raises:
        Unusable: it cannot be opened.
        KdkitError: OpenSlide is not installed.
    """
    try:
        return open_slide(path)
    except KdkitError as error:
        if error.id == "KD-SRC-340":
            raise
        fix = "copy them again, or convert them to tiled TIFF pyramids (vips tiffsave --tile --pyramid)"
        raise Unusable(Skipped("slides that cannot be opened", str(path), fix)) from None


def choose_level(slide: Any, down: float, side: int) -> tuple[int, int]:
    """(level, pixels of a side there) for tiles at ``down`` times the pixels of level 0."""
    downs = slide.level_downsamples
    level = max(n for n, one in enumerate(downs) if n == 0 or one <= down * (1 + CLOSE))
    ratio = down / downs[level]
    return level, side if abs(ratio - 1) <= CLOSE else max(1, round(side * ratio))


def _downsample(slide: Any, plan: TilePlan, where: str) -> float:
    """Pixels of level 0 for a pixel of a tile.

    Raises:
        Unusable: the slide does not say how large its pixels are, or they are too large.
    """
    own, power = _number(slide, "openslide.mpp-x"), _number(slide, "openslide.objective-power")
    if own is None or not MICRONS[0] <= own <= MICRONS[1]:
        own = plan.slide_mpp
    if own is not None:
        down = (plan.mpp or TEN / (plan.magnification or 1)) / own
    elif power is not None and plan.magnification is not None and power > 0:
        down = power / plan.magnification
    else:
        fix = "set slide_mpp: 0.25 (their microns per pixel) in the options of the data entry"
        raise Unusable(Skipped("slides that do not say how many microns a pixel has", where, fix))
    if down < 1 - CLOSE:
        has = f"{own:g} microns per pixel" if own is not None else f"{power:g}x"
        fix = f"kdkit invents no pixels: this slide has {has}; choose it by mpp or magnification, or remove the slide"
        raise Unusable(Skipped("slides with larger pixels than asked for", where, fix))
    return down


def _number(slide: Any, name: str) -> float | None:
    try:
        found = float(slide.properties[name])
    except (KeyError, ValueError):
        return None
    return found if math.isfinite(found) else None
