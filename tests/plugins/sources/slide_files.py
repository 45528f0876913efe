"""Whole-slide images for tests, written with tifffile, and files of coordinates as TRIDENT and CLAM write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("openslide")
Pixels = NDArray[np.uint8]
SECRETS = ("Doe", "MRN-4711", "barcode")
GLASS = 242


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    """Colored noise: tissue everywhere."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tissue_on_glass(height: int, width: int, box: tuple[int, int, int, int], seed: int = 0) -> Pixels:
    """White glass with a rectangle (x0, y0, x1, y1) of pink noise."""
    pixels = np.full((height, width, 3), GLASS, dtype=np.uint8)
    x0, y0, x1, y1 = box
    pink = np.array([200, 80, 150]) + np.random.default_rng(seed).integers(-20, 21, (y1 - y0, x1 - x0, 3))
    pixels[y0:y1, x0:x1] = pink
    return pixels


def write_slide(
    path: Path,
    pixels: Pixels,
    mpp: float | None = 0.5,
    power: float | None = 20,
    levels: Sequence[Pixels] | None = None,
    described: str = "Aperio Image Library v1",
) -> Path:
    """A pyramid in Aperio's form (whose header and label name a patient); a plain tiled TIFF without ``described``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"MPP": mpp, "AppMag": power, "Patient": "Doe^Jane", "ID": "MRN-4711", "barcode": "barcode"}
    text = "|".join([f"{described} ", *(f"{name} = {value}" for name, value in facts.items() if value is not None)])
    options: dict[str, Any] = {"photometric": "rgb", "metadata": None}
    if not described:
        options["resolution"], options["resolutionunit"] = (1e4 / (mpp or 1),) * 2, "CENTIMETER" if mpp else "NONE"
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate([pixels, *([pixels[::4, ::4]] if levels is None else levels)]):
            kept = {"description": text} if described else {}
            file.write(level, tile=(64, 64), subfiletype=int(number > 0), **kept, **options)
            if described and not number:
                file.write(pixels[::8, ::8], rowsperstrip=16, description="Aperio Image Library", **options)
        if described:
            label = np.full((16, 24, 3), 77, dtype=np.uint8)
            file.write(label, rowsperstrip=16, description="Aperio Image Library\nlabel 1", subfiletype=1, **options)
    return path


def write_coordinates(path: Path, corners: Sequence[Sequence[float]], attributes: Mapping[str, Any]) -> Path:
    """``coords`` with these attributes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("coords", data=np.array(corners).reshape(-1, 2))
        dataset.attrs.update(attributes)
        dataset.attrs["name"] = dataset.attrs["savetodir"] = "Doe"
    return path
