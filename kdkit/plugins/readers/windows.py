"""Windows: which values become black and white (DICOM PS3.3, C.11.2.1.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.errors import KdkitError, did_you_mean

Window = str | list[float] | tuple[float, float]
FILE, FULL = "file", "full"
PRESETS: Mapping[str, tuple[float, float]] = {
    "abdomen": (50, 400),
    "bone": (400, 1800),
    "brain": (40, 80),
    "liver": (30, 150),
    "lung": (-600, 1500),
    "mediastinum": (50, 350),
    "spine": (50, 250),
    "stroke": (40, 40),
    "subdural": (75, 215),
    "temporal-bone": (600, 2800),
}
"""Center and width of usual windows of CT, in Hounsfield units."""


def read_window(window: object, where: str) -> str:
    """The window of an option as a location keeps it: ``file``, ``full`` or ``CENTER/WIDTH``.

    Raises:
        KdkitError: an unknown name, or no two numbers.
    """
    if isinstance(window, str) and window in (FILE, FULL):
        return window
    if isinstance(window, str) and window in PRESETS:
        window = PRESETS[window]
    if isinstance(window, list | tuple) and len(window) == 2 and all(_is_number(value) for value in window):
        center, width = (float(value) for value in window)
        if width >= 1:
            return f"{center:g}/{width:g}"
    names = (FILE, FULL, *PRESETS)
    fix = did_you_mean(window, names) if isinstance(window, str) else "write [center, width], such as [-600, 1500]"
    raise KdkitError("KD-SRC-095", f"{window!r} is no window", where=where, fix=fix)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def apply_window(values: NDArray[Any], center: float, width: float, function: str = "LINEAR") -> NDArray[np.uint8]:
    """Values -> 0 to 255, rounded; ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID`` (C.11.2.1.2.1, C.11.2.1.3).

    Raises:
        ValueError: the width is too small, or another function.
    """
    x = values.astype(np.float64)
    if function == "SIGMOID" and width > 0:
        y = 255 / (1 + np.exp(np.clip(-4 * (x - center) / width, -700, 700)))
    elif function == "LINEAR" and width >= 1:
        y = np.where(x > center - 0.5, 255.0, 0.0) if width == 1 else ((x - center + 0.5) / (width - 1) + 0.5) * 255
    elif function == "LINEAR_EXACT" and width > 0:
        y = ((x - center) / width + 0.5) * 255
    else:
        raise ValueError(f"a window of width {width:g} and the function {function}")
    found: NDArray[np.uint8] = np.rint(np.clip(y, 0, 255)).astype(np.uint8)
    return found
