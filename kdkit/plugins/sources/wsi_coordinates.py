"""Tiles that TRIDENT or CLAM chose: HDF5 files with ``coords`` (N, 2), corners in pixels of level 0.

TRIDENT (``coords_to_h5``) writes the attributes ``patch_size`` and ``patch_size_level0``. CLAM (``process_contour``)
writes ``patch_size`` and ``patch_level``, and older versions ``custom_downsample``. Names and folders, which both write
too, are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kdkit.core.base.hdf5 import own_dataset, read_coordinates
from kdkit.core.contracts import Skipped
from kdkit.plugins.readers.wsi import MAX_SIDE
from kdkit.plugins.sources.wsi_tiles import MAX_TILES, Tiles, Unusable, choose_level, opened

COORDS = "coords"
READ = (
    "patch_size", "patch_size_level0", "level0_width", "level0_height", "patch_level", "level_dim", "custom_downsample",
)  # fmt: skip
"""Attributes that are read."""
NAMES = ("{stem}_patches.h5", "{stem}.h5")
"""Of the file of a slide: TRIDENT's patches, then CLAM's, and TRIDENT's features, which have the coordinates too."""


def coordinates_file(folder: Path, slide: Path) -> Path | None:
    """The file with the tiles of a slide, by its name."""
    paths = (folder / name.format(stem=slide.stem) for name in NAMES)
    return next((path for path in paths if path.is_file()), None)


def read_tiles(path: Path, file: Path) -> Tiles:
    """The tiles of a slide.

    Args:
        path: of the slide.
        file: with the coordinates.

    Raises:
        Unusable: the slide cannot be opened; the file is damaged, lacks an attribute, or is of another slide.
        KdkitError: OpenSlide is not installed.
    """
    slide = opened(path)
    try:
        with h5py.File(file, "r", locking=False) as opened_file:
            dataset = own_dataset(opened_file, COORDS)
            if dataset is None:
                raise ValueError("no coords")
            if dataset.size > 2 * MAX_TILES:
                raise ValueError(f"{dataset.shape} coordinates")
            values = read_coordinates(dataset, COORDS)
            level, read, side = _layout(slide, {name: dataset.attrs[name] for name in READ if name in dataset.attrs})
    except _OtherSlide:
        raise _of_another(file) from None
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError):
        fix = "write it again by TRIDENT or CLAM: coords (N, 2), with patch_size, and patch_size_level0 or patch_level"
        raise Unusable(Skipped("files of coordinates that are damaged or incomplete", str(file), fix)) from None
    corners = np.rint(values[:, :2]).astype(np.int64)
    if not len(corners):
        raise Unusable(Skipped("slides without a tile of enough tissue", str(path), level="warning"))
    if (corners < 0).any() or (corners >= np.array(slide.dimensions)).any():
        raise _of_another(file)
    return Tiles(level, read, side, corners)


class _OtherSlide(Exception):
    """The size of the slide is another."""


def _of_another(file: Path) -> Unusable:
    fix = "they are of another slide of that name, or of another scan: make them again"
    return Unusable(Skipped("files of coordinates beyond the edges of their slide", str(file), fix))


def _layout(slide: Any, attributes: Mapping[str, Any]) -> tuple[int, int, int]:
    """(level, pixels of a side there, pixels of a side of the tile)."""
    side = _whole(attributes["patch_size"])
    if side > MAX_SIDE:
        raise ValueError(f"patches of {side} pixels")
    if "patch_size_level0" in attributes:
        size = [attributes.get(f"level0_{name}") for name in ("width", "height")]
        if any(one is not None and _whole(one) != own for one, own in zip(size, slide.dimensions, strict=True)):
            raise _OtherSlide
        return *choose_level(slide, _whole(attributes["patch_size_level0"]) / side, side), side
    level = _whole(attributes["patch_level"], least=0)
    if level >= slide.level_count:
        raise _OtherSlide
    if "level_dim" in attributes and tuple(map(int, attributes["level_dim"])) != slide.level_dimensions[level]:
        raise _OtherSlide
    return level, side * _whole(attributes.get("custom_downsample", 1)), side


def _whole(value: Any, least: int = 1) -> int:
    """A number of pixels.

    Raises:
        ValueError: it is none, or out of range.
    """
    number = int(value)
    if number != value or not least <= number <= 64 * MAX_SIDE:
        raise ValueError(f"{value!r}")
    return number
