"""Drawing on a whole stack of pictures at once: soft shapes and textures in plain numpy.

Every function returns ``float32`` arrays of shape ``(count, SIZE, SIZE)``.  Coordinates run from -1 (left, top) to +1
(right, bottom); a parameter that differs from picture to picture has shape ``(count, 1, 1)``, as ``spread`` returns it.
"""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

SIZE = 48
"""Edge of a picture in pixels."""

Stack: TypeAlias = NDArray[np.float32]

_AXIS: Stack = np.linspace(-1, 1, SIZE, dtype=np.float32)
Y: Stack = _AXIS[None, :, None]
X: Stack = _AXIS[None, None, :]


def spread(rng: np.random.Generator, count: int, low: float, high: float) -> Stack:
    """One uniform number in [low, high) per picture, shape (count, 1, 1)."""
    return np.float32(low) + np.float32(high - low) * rng.random((count, 1, 1), dtype=np.float32)


def coin(rng: np.random.Generator, count: int) -> Stack:
    """-1 or +1 per picture, shape (count, 1, 1): left or right, bright or dark."""
    sign: Stack = np.where(rng.random((count, 1, 1)) < 0.5, np.float32(-1), np.float32(1))
    return sign


def squash(value: Stack) -> Stack:
    """The logistic function by tanh, which cannot overflow."""
    level: Stack = np.float32(0.5) + np.float32(0.5) * np.tanh(np.float32(0.5) * value)
    return level


def ellipse(x: Stack, y: Stack, rx: Stack, ry: Stack, edge: float = 0.05, turn: Stack | None = None) -> Stack:
    """A filled ellipse in [0, 1]: center (x, y), radii (rx, ry), a border ``edge`` wide, turned by ``turn`` radians."""
    dx, dy = X - x, Y - y
    if turn is not None:
        cos, sin = np.cos(turn), np.sin(turn)
        dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
    radius = np.sqrt((dx / rx) ** 2 + (dy / ry) ** 2)
    return squash((1 - radius) * np.minimum(rx, ry) * np.float32(4 / edge))


def ring(x: Stack, y: Stack, radius: Stack, width: float) -> Stack:
    """A circle line in [0, 1], about ``width`` thick."""
    distance = np.hypot(X - x, Y - y) - radius
    line: Stack = np.exp(-((distance / np.float32(width)) ** 2))
    return line


def band(center: Stack, width: Stack, position: Stack) -> Stack:
    """A Gaussian band across ``position`` (usually ``X`` or ``Y``, or a bent mixture of the two)."""
    height: Stack = np.exp(-(((position - center) / width) ** 2))
    return height


def spots(rng: np.random.Generator, count: int, number: int, radius: float, reach: float = 0.8) -> Stack:
    """``number`` round spots a picture, anywhere within +-``reach``, summed; each peaks between .5 and 1."""
    center = rng.uniform(-reach, reach, (2, count, number, 1)).astype(np.float32)
    return spots_at(center[0], center[1], rng.uniform(0.5, 1, (count, number, 1)).astype(np.float32), radius)


def spots_at(x: Stack, y: Stack, height: Stack, radius: float) -> Stack:
    """Round Gaussian spots at given places: ``x``, ``y`` and ``height`` of shape (count, number, 1)."""
    across = np.exp(-(((_AXIS - x) / np.float32(radius)) ** 2)) * height
    down = np.exp(-(((_AXIS - y) / np.float32(radius)) ** 2))
    total: Stack = np.matmul(down.transpose(0, 2, 1), across)
    return total


@cache
def _enlarge(cells: int) -> Stack:
    """The (SIZE, cells) matrix that enlarges ``cells`` values to SIZE by linear interpolation."""
    place = np.linspace(0, cells - 1, SIZE)
    nodes = np.arange(cells)
    weights: Stack = np.clip(1 - np.abs(place[:, None] - nodes[None, :]), 0, 1).astype(np.float32)
    return weights


def clouds(rng: np.random.Generator, count: int, cells: int) -> Stack:
    """Smooth unit-variance noise whose grains are about SIZE / cells pixels wide."""
    matrix = _enlarge(cells)
    coarse = rng.standard_normal((count, cells, cells), dtype=np.float32)
    smooth: Stack = np.matmul(np.matmul(matrix, coarse), matrix.T) * np.float32(1.5)
    return smooth


def blob(x: Stack, y: Stack, rx: Stack | float, ry: Stack | float) -> Stack:
    """A Gaussian hill of height 1 at (x, y)."""
    height: Stack = np.exp(-(((X - x) / rx) ** 2) - ((Y - y) / ry) ** 2)
    return height


def grain(rng: np.random.Generator, count: int) -> Stack:
    """Independent unit-variance noise in each pixel."""
    return rng.standard_normal((count, SIZE, SIZE), dtype=np.float32)


def gray(stack: Stack) -> Stack:
    """A gray stack as color: (count, SIZE, SIZE) -> (count, SIZE, SIZE, 3)."""
    return np.repeat(stack[..., None], 3, axis=-1)


def tint(stack: Stack, color: tuple[float, float, float]) -> Stack:
    """A stack times one RGB color: (count, SIZE, SIZE) -> (count, SIZE, SIZE, 3)."""
    return stack[..., None] * np.asarray(color, dtype=np.float32)
