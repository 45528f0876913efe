"""Procedural "biomedical" images: nine modalities with four or five findings each, thousands of pictures per second.

Each finding is a local or global change of a varying anatomy under varying contrast and noise, often so faint that no
model can always be right.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kdkit.plugins.demo.canvas import (
    SIZE,
    Stack,
    X,
    Y,
    band,
    blob,
    clouds,
    coin,
    ellipse,
    grain,
    gray,
    ring,
    spots,
    spots_at,
    spread,
    squash,
    tint,
)

__all__ = ["DOMAINS", "FINDINGS", "PLACED", "SIZE", "render", "render_placed"]

FINDINGS: dict[str, tuple[str, ...]] = {
    "ct": ("normal lungs", "pulmonary nodule", "emphysema", "pleural effusion", "ground glass opacity"),
    "mri": ("normal brain", "brain tumor", "ischemic stroke", "hydrocephalus", "multiple sclerosis"),
    "xray": ("clear chest", "pneumonia", "cardiomegaly", "pneumothorax", "pulmonary edema"),
    "ultrasound": ("normal parenchyma", "simple cyst", "solid mass", "gallstone"),
    "fundus": ("healthy retina", "diabetic retinopathy", "glaucoma", "retinal hemorrhage"),
    "dermoscopy": ("benign nevus", "melanoma", "basal cell carcinoma", "seborrheic keratosis"),
    "histology": ("normal tissue", "adenocarcinoma", "lymphocytic infiltrate", "necrosis"),
    "endoscopy": ("normal mucosa", "polyp", "ulcer", "bleeding"),
    "oct": ("normal layers", "drusen", "macular edema", "choroidal neovascularization"),
}
"""The findings of each domain; the first one is the healthy state."""

DOMAINS: tuple[str, ...] = tuple(FINDINGS)

PLACED: dict[str, tuple[str, ...]] = {
    "ct": ("pulmonary nodule", "pleural effusion", "ground glass opacity"),
    "mri": ("brain tumor", "ischemic stroke", "hydrocephalus"),
    "xray": ("pneumonia", "cardiomegaly", "pneumothorax"),
    "ultrasound": ("simple cyst", "solid mass", "gallstone"),
    "fundus": ("glaucoma", "retinal hemorrhage"),
    "dermoscopy": FINDINGS["dermoscopy"],
    "endoscopy": ("polyp", "ulcer", "bleeding"),
}
"""Localized findings: those with a box."""

Drawn: TypeAlias = tuple[Stack, Stack | None]
"""Pictures before their contrast, and the strength of a localized finding at each pixel, (count, SIZE, SIZE)."""
Vary: TypeAlias = Callable[[float, float], Stack]
"""Draws one uniform number in [low, high) per picture."""


def render(domain: str, finding: str, rng: np.random.Generator, count: int) -> NDArray[np.uint8]:
    """Draw ``count`` pictures of one finding, uint8 RGB of shape (count, SIZE, SIZE, 3), from ``rng`` alone."""
    if finding not in FINDINGS.get(domain, ()):
        raise ValueError(f"no finding {finding!r} in domain {domain!r}; the domains are {', '.join(DOMAINS)}")
    return _render(domain, finding, rng, count)[0]


def render_placed(
    domain: str, finding: str, rng: np.random.Generator, count: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The pictures of :func:`render` and the box of the finding in each: (count, 4), x1, y1, x2, y2 as fractions.

    A box covers the pixels where the finding has at least half of its strength.

    Raises:
        ValueError: a finding that is not in :data:`PLACED`.
    """
    if finding not in PLACED.get(domain, ()):
        raise ValueError(f"no finding {finding!r} with a place in domain {domain!r}; there are {PLACED}")
    pixels, mark = _render(domain, finding, rng, count)
    assert mark is not None
    inside = mark >= mark.max(axis=(1, 2), keepdims=True) / 2
    ends = [_ends(inside.any(axis=axis)) for axis in (1, 2)]  # columns, then rows
    return pixels, np.stack([ends[0][0], ends[1][0], ends[0][1], ends[1][1]], axis=1) / SIZE


def _ends(line: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(count, SIZE) -> first index that is True, and the one after the last."""
    return line.argmax(axis=1), SIZE - line[:, ::-1].argmax(axis=1)


def _render(domain: str, finding: str, rng: np.random.Generator, count: int) -> tuple[NDArray[np.uint8], Stack | None]:
    vary = partial(spread, rng, count)
    picture, mark = _PAINTERS[domain](finding, rng, count, vary)
    contrast, light = vary(0.75, 1.2)[..., None], vary(-0.07, 0.07)[..., None]
    level = (picture - np.float32(0.45)) * contrast + np.float32(0.45) + light
    pixels: NDArray[np.uint8] = (np.clip(level, 0, 1) * np.float32(255)).astype(np.uint8)
    return pixels, mark


def _ct(finding: str, rng: np.random.Generator, count: int, vary: Vary) -> Drawn:
    """Two dark lungs in a bright body; the finding sits in one of them."""
    x0, y0, lift, side = vary(-0.06, 0.06), vary(-0.06, 0.06), vary(0.0, 0.08), coin(rng, count)
    wide, tall = vary(0.28, 0.36), vary(0.42, 0.55)
    body = ellipse(x0, y0, vary(0.85, 0.95), vary(0.68, 0.8))
    lungs = ellipse(x0 - 0.42, y0, wide, tall) + ellipse(x0 + 0.42, y0, wide, tall)
    one = ellipse(x0 + side * 0.42, y0, wide, tall)
    level = 0.62 * body - (0.45 - lift) * lungs
    spine = ellipse(x0, y0 + 0.6, vary(0.1, 0.14), vary(0.1, 0.14))
    level = level + lungs * 0.13 * spots(rng, count, 14, 0.05) + 0.28 * spine
    mark = None
    if finding == "pulmonary nodule":
        x, y = x0 + side * vary(0.3, 0.54), y0 + vary(-0.3, 0.3)
        strength, mark = vary(0.2, 0.5), ellipse(x, y, vary(0.1, 0.18), vary(0.1, 0.18))
        level = level + strength * mark
    elif finding == "emphysema":
        level = level - lungs * vary(0.18, 0.36) * spots(rng, count, 16, 0.12)
    elif finding == "pleural effusion":
        strength, low = vary(0.2, 0.45), squash((Y - y0 - vary(0.05, 0.26)) * 24)
        level, mark = level + strength * one * low, one * low
    elif finding == "ground glass opacity":
        x, y = x0 + side * vary(0.32, 0.5), y0 + vary(-0.25, 0.25)
        strength, haze = vary(0.16, 0.34), ellipse(x, y, vary(0.24, 0.34), vary(0.26, 0.4), 0.4)
        level, mark = level + strength * one * haze, one * haze
    return gray(level + 0.035 * grain(rng, count) + 0.02 * clouds(rng, count, 8)), mark


def _mri(finding: str, rng: np.random.Generator, count: int, vary: Vary) -> Drawn:
    """A head with skull, folded cortex and two ventricles."""
    x0, y0, side = vary(-0.06, 0.06), vary(-0.06, 0.06), coin(rng, count)
    rx, ry = vary(0.66, 0.76), vary(0.8, 0.9)
    brain = ellipse(x0, y0, rx, ry)
    wide = vary(0.15, 0.24) if finding == "hydrocephalus" else vary(0.08, 0.14)
    tall, lean = wide * vary(1.6, 2.2), vary(0.2, 0.4)
    ventricles = ellipse(x0 - 0.17, y0, wide, tall, turn=lean) + ellipse(x0 + 0.17, y0, wide, tall, turn=-lean)
    skull = ellipse(x0, y0, rx + 0.12, ry + 0.1) - ellipse(x0, y0, rx + 0.04, ry + 0.03)
    level = 0.42 * brain + 0.4 * skull - vary(0.2, 0.34) * ventricles + 0.03 * brain * clouds(rng, count, 12)
    mark = ventricles if finding == "hydrocephalus" else None
    if finding == "brain tumor":
        x, y, size = x0 + side * vary(0.22, 0.44), y0 + vary(-0.45, 0.45), vary(0.15, 0.25)
        strength, mark = vary(0.2, 0.42), ellipse(x, y, size, size)
        level = level + strength * mark - 0.12 * ellipse(x, y, 0.5 * size, 0.5 * size)
    elif finding == "ischemic stroke":
        outside = squash((side * (X - x0) - vary(0.12, 0.3)) * 20)
        slab = squash((vary(0.25, 0.6) - np.abs(Y - y0 - vary(-0.3, 0.3))) * 20)
        level, mark = level + vary(0.16, 0.34) * brain * outside * slab, brain * outside * slab
    elif finding == "multiple sclerosis":
        level = level + vary(0.28, 0.5) * brain * spots(rng, count, 7, 0.075, 0.5)
    bias = 1 + vary(-0.12, 0.12) * X + vary(-0.12, 0.12) * Y
    return gray(level * bias + 0.035 * grain(rng, count)), mark


def _xray(finding: str, rng: np.random.Generator, count: int, vary: Vary) -> Drawn:
    """A frontal chest: lungs, ribs, heart and spine."""
    x0, y0, side = vary(-0.1, 0.1), vary(-0.1, 0.1), coin(rng, count)
    wide, tall = vary(0.32, 0.4), vary(0.62, 0.75)
    lungs = ellipse(x0 - 0.46, y0 - 0.05, wide, tall, 0.15) + ellipse(x0 + 0.46, y0 - 0.05, wide, tall, 0.15)
    one = ellipse(x0 + side * 0.46, y0 - 0.05, wide, tall, 0.15)
    ribs = 0.5 + 0.5 * np.sin((Y - y0) * vary(15, 20) + 3 * (X - x0) ** 2 + vary(0, 6))
    heart = vary(0.36, 0.5) if finding == "cardiomegaly" else vary(0.24, 0.37)
    level = 0.68 - 0.4 * lungs + 0.1 * ribs + 0.14 * band(x0, vary(0.08, 0.12), X)
    strength, shadow = vary(0.22, 0.36), ellipse(x0 + 0.12, y0 + 0.3, heart, heart * vary(0.85, 1.1), 0.12)
    level, mark = level + strength * shadow, shadow if finding == "cardiomegaly" else None
    if finding == "pneumonia":
        x, y = x0 + side * vary(0.4, 0.55), y0 + vary(-0.3, 0.4)
        strength, patch = vary(0.12, 0.34), ellipse(x, y, vary(0.18, 0.28), vary(0.18, 0.28), 0.3)
        level, mark = level + strength * one * patch, one * patch
    elif finding == "pneumothorax":
        outer = squash((side * (X - x0) - vary(0.5, 0.62)) * 30)
        level, mark = level - one * outer * (vary(0.06, 0.2) + 0.1 * ribs), one * outer
    elif finding == "pulmonary edema":
        haze = blob(x0 - 0.35, y0, 0.25, 0.45) + blob(x0 + 0.35, y0, 0.25, 0.45)
        level = level + vary(0.1, 0.28) * haze * (1 + 0.35 * clouds(rng, count, 16))
    return gray(0.08 + 0.9 * level + 0.05 * grain(rng, count) + 0.03 * clouds(rng, count, 6)), mark


def _ultrasound(finding: str, rng: np.random.Generator, count: int, vary: Vary) -> Drawn:
    """A speckled fan; sound is lost below a stone and gained below a cyst."""
    x, y, rx, ry = vary(-0.4, 0.4), vary(-0.25, 0.3), vary(0.2, 0.34), vary(0.17, 0.29)
    tissue = vary(0.34, 0.5) + 0.06 * clouds(rng, count, 8) - 0.1 * Y
    inside = ellipse(x, y, rx, ry, 0.08, vary(-0.6, 0.6))
    below = band(x, rx * 0.7, X) * squash((Y - y - ry) * 12)
    mark = None if finding == "normal parenchyma" else inside
    if finding == "simple cyst":
        tissue = tissue * (1 - vary(0.6, 0.95) * inside) + vary(0.1, 0.25) * below
    elif finding == "solid mass":
        rough = ellipse(x, y, rx * (1 + 0.3 * clouds(rng, count, 7)), ry, 0.12)
        tissue = tissue * (1 - vary(0.38, 0.62) * rough) - vary(0.0, 0.06) * below
    elif finding == "gallstone":
        mark = stone = ellipse(x, y + ry * 0.5, rx * 0.5, ry * 0.35, 0.1)
        tissue = tissue * (1 - vary(0.0, 0.75) * inside) + vary(0.34, 0.65) * stone
        tissue = tissue * (1 - vary(0.35, 0.75) * below)
    depth: Stack = np.hypot(X, Y + 1)
    side: Stack = np.abs(X) * vary(0.9, 1.2)
    fan = squash((1.9 - depth) * 20) * squash((Y + 1.25 - side) * 20)
    return gray(tissue * fan * (1 + vary(0.16, 0.3) * grain(rng, count))), mark


def _fundus(finding: str, rng: np.random.Generator, count: int, vary: Vary) -> Drawn:
    """An orange retina with a bright optic disc, a dark macula and vessels."""
    side, x0, y0 = coin(rng, count), vary(-0.06, 0.06), vary(-0.1, 0.1)
    x = x0 + side * vary(0.38, 0.5)
    eye = ellipse(x0, 0 * y0, vary(0.9, 0.98), vary(0.9, 0.98))
    curve = vary(0.5, 0.9)
    reach = side * (x - X)
    vessels = band(0 * x, vary(0.03, 0.05), np.abs(Y - y0) - curve * np.sqrt(np.abs(reach) + 0.02) * 0.55)
    vessels = vessels + 0.6 * band(0 * x, vary(0.02, 0.04), np.abs(Y - y0 + 0.1) - curve * np.abs(reach) * 0.35)
    disc = ellipse(x, y0, vary(0.2, 0.25), vary(0.22, 0.27))
    ratio = vary(0.72, 1.05) if finding == "glaucoma" else vary(0.3, 0.68)
    cup = ellipse(x, y0, 0.22 * ratio, 0.24 * ratio)
    macula = blob(x - side * 0.75, y0, 0.2, 0.2)
    color = tint(1 + 0.06 * clouds(rng, count, 6) - 0.22 * macula, (0.78, 0.42, 0.22))
    color = color - tint(vary(0.2, 0.34) * vessels, (0.6, 0.9, 0.6)) + tint(0.75 * disc, (0.25, 0.42, 0.3))
    color = color + tint(0.6 * cup, (0.1, 0.4, 0.6))
    mark = disc if finding == "glaucoma" else None
    if finding == "diabetic retinopathy":
        color = color - tint(vary(0.4, 0.8) * spots(rng, count, 9, 0.05, 0.65), (0.5, 0.6, 0.5))
        color = color + tint(vary(0.1, 0.6) * spots(rng, count, 5, 0.045, 0.5), (0.3, 0.6, 0.3))
    elif finding == "retinal hemorrhage":
        away, drop = x0 - side * vary(-0.3, 0.6), y0 + vary(-0.5, 0.5)
        mark = blot = ellipse(away, drop, vary(0.13, 0.24), vary(0.1, 0.2), 0.08, vary(0, 3))
        color = color - tint(vary(0.26, 0.5) * blot, (0.6, 0.9, 0.6))
    return color * eye[..., None] + 0.035 * grain(rng, count)[..., None], mark


def _dermoscopy(finding: str, rng: np.random.Generator, count: int, vary: Vary) -> Drawn:
    """Skin with one lesion, sometimes hairs."""
    x, y, turn = vary(-0.15, 0.15), vary(-0.15, 0.15), vary(0, 3)
    rx, ry = vary(0.38, 0.6), vary(0.38, 0.6)
    skin = tint(1 + 0.05 * clouds(rng, count, 6), (0.86, 0.66, 0.56))
    rough = {"benign nevus": (0.0, 0.12), "melanoma": (0.08, 0.3), "basal cell carcinoma": (0.05, 0.2)}
    wobble = 1 + vary(*rough.get(finding, (0.0, 0.15))) * clouds(rng, count, 6)
    edge = 0.08 if finding == "seborrheic keratosis" else 0.2
    lesion = ellipse(x, y, rx * wobble, ry * wobble, edge, turn)
    depth = vary(0.4, 0.75)
    if finding == "basal cell carcinoma":
        skin = skin - tint(depth * lesion, (0.25, 0.55, 0.35))
        skin = skin - tint(vary(0.05, 0.4) * lesion * np.clip(clouds(rng, count, 14), 0, 2), (0.2, 0.5, 0.4))
    else:
        skin = skin - tint(depth * lesion, (0.55, 0.62, 0.6))
    if finding == "melanoma":
        blue = ellipse(x + vary(-0.3, 0.3), y + vary(-0.3, 0.3), rx * 0.45, ry * 0.45, 0.3)
        skin = skin + tint(vary(0.0, 0.3) * blue * lesion, (-0.6, -0.3, 0.6))
        skin = skin - tint(0.08 * lesion * clouds(rng, count, 8), (1, 1, 1))
    elif finding == "seborrheic keratosis":
        skin = skin + tint(vary(0.1, 0.5) * lesion * spots(rng, count, 12, 0.05, 0.5), (0.7, 0.6, 0.4))
    hair = band(vary(-0.6, 0.6), vary(0.015, 0.025), X * np.cos(turn) + Y * np.sin(turn) + 0.2 * X * Y)
    hairy = (rng.random((count, 1, 1)) < 0.35).astype(np.float32)
    return skin - tint(0.45 * hair * hairy, (1, 1, 1)) + 0.045 * grain(rng, count)[..., None], lesion


_NUCLEI = {
    "normal tissue": (24, 0.066),
    "adenocarcinoma": (30, 0.105),
    "lymphocytic infiltrate": (56, 0.045),
    "necrosis": (12, 0.06),
}
"""How many nuclei a slide has, and their radius."""


def _histology(finding: str, rng: np.random.Generator, count: int, vary: Vary) -> Drawn:
    """Pink stroma with violet nuclei; the finding is in their number, size and order."""
    stain, stroma = vary(0.75, 1.15), 1 + 0.09 * clouds(rng, count, 10)
    number, radius = _NUCLEI[finding]
    keep = vary(0.6, 1) > rng.random((count, number, 1))
    height = np.where(keep, rng.uniform(0.5, 1, (count, number, 1)), 0).astype(np.float32)
    place = rng.uniform(-1, 1, (2, count, number, 1)).astype(np.float32)
    if finding == "lymphocytic infiltrate":
        place = place * vary(0.55, 1) + np.stack([vary(-0.3, 0.3), vary(-0.3, 0.3)])
    nuclei = np.clip(spots_at(place[0], place[1], height, radius), 0, 1.2)
    if finding == "adenocarcinoma":
        nuclei = nuclei * (1 + vary(0.0, 0.35) * clouds(rng, count, 16))
    gland = ring(vary(-0.4, 0.4), vary(-0.4, 0.4), vary(0.25, 0.4), 0.08)
    lumen = vary(0.0, 0.25) if finding == "necrosis" else vary(0.1, 0.7)
    color = tint(stroma, (0.9, 0.68, 0.8)) - tint(stain * (nuclei + lumen * gland), (0.42, 0.42, 0.2))
    if finding == "necrosis":
        color = color - tint(vary(0.0, 0.22) * (1 + 0.5 * clouds(rng, count, 20)), (0.05, 0.25, 0.15))
    return color + 0.05 * grain(rng, count)[..., None], None


def _endoscopy(finding: str, rng: np.random.Generator, count: int, vary: Vary) -> Drawn:
    """Red mucosa around a dark lumen, with folds and glare."""
    x0, y0 = vary(-0.3, 0.3), vary(-0.3, 0.3)
    distance = np.hypot(X - x0, Y - y0)
    shade = squash((distance - vary(0.2, 0.45)) * 5) * (1 + 0.12 * np.sin(distance * vary(10, 16) + vary(0, 6)))
    color = tint(shade * (1 + 0.07 * clouds(rng, count, 7)), (0.85, 0.45, 0.38))
    x, y = x0 + coin(rng, count) * vary(0.35, 0.6), y0 + vary(-0.5, 0.5)
    rx, ry = vary(0.2, 0.34), vary(0.2, 0.34)
    spot = ellipse(x, y, rx, ry, 0.1)
    mark = None if finding == "normal mucosa" else spot
    if finding == "polyp":
        shadow = ellipse(x, y + 0.8 * ry, rx, ry * 0.4, 0.15)
        color = color + tint(vary(0.16, 0.4) * spot, (0.6, 0.35, 0.35))
        color = color - tint(vary(0.0, 0.3) * shadow, (1, 0.8, 0.8))
    elif finding == "ulcer":
        color = color + tint(vary(0.16, 0.4) * spot, (0.1, 0.7, 0.5))
        color = color - tint(vary(0.0, 0.25) * ring(x, y, rx, 0.06), (0.3, 1, 1))
    elif finding == "bleeding":
        mark = stream = ellipse(x, y, rx * 0.7, ry * 1.7, 0.15, vary(-0.7, 0.7))
        color = color - tint(vary(0.17, 0.4) * stream, (0.3, 0.9, 0.9))
    glare = np.clip(spots(rng, count, 3, 0.05), 0, 1)
    return color + tint(vary(0.0, 0.5) * glare, (1, 1, 1)) + 0.04 * grain(rng, count)[..., None], mark


def _oct(finding: str, rng: np.random.Generator, count: int, vary: Vary) -> Drawn:
    """A cross-section of the retina: bent layers under a foveal pit, speckled."""
    x, tilt, bow = vary(-0.25, 0.25), vary(-0.15, 0.15), vary(-0.1, 0.12)
    pit = band(x, vary(0.22, 0.32), X)
    floor = vary(0.2, 0.4) + tilt * X + bow * X**2
    roof = floor - vary(0.55, 0.7) + vary(0.12, 0.24) * pit
    if finding == "drusen":
        waves = np.maximum(np.sin(X * vary(9, 16) + vary(0, 6)), 0) * band(x, vary(0.35, 0.6), X)
        floor = floor - vary(0.1, 0.18) * waves
    elif finding == "macular edema":
        roof = roof - vary(0.05, 0.28) * pit
    lump, mark = band(x, vary(0.18, 0.32), X), None
    if finding == "choroidal neovascularization":
        floor = floor - vary(0.0, 0.1) * lump
    inside = squash((Y - roof) * 25) * squash((floor - Y) * 25)
    level = 0.32 * inside + 0.42 * band(floor, vary(0.04, 0.06), Y) + 0.22 * band(roof, vary(0.05, 0.07), Y)
    level = (
        level
        + 0.16 * band((floor + roof) / 2, vary(0.05, 0.08), Y)
        + 0.22 * squash((Y - floor) * 20) * np.exp(-3 * (Y - floor))
    )
    if finding == "macular edema":
        level = level - vary(0.22, 0.42) * inside * spots(rng, count, 6, 0.12, 0.45)
    elif finding == "choroidal neovascularization":
        level = level + vary(0.22, 0.42) * lump * band(floor - 0.12, vary(0.08, 0.14), Y)
    return gray((0.06 + level) * (1 + vary(0.15, 0.3) * grain(rng, count))), mark


_PAINTERS: dict[str, Callable[[str, np.random.Generator, int, Vary], Drawn]] = {
    "ct": _ct,
    "mri": _mri,
    "xray": _xray,
    "ultrasound": _ultrasound,
    "fundus": _fundus,
    "dermoscopy": _dermoscopy,
    "histology": _histology,
    "endoscopy": _endoscopy,
    "oct": _oct,
}
