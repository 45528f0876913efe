"""The same pictures and texts through a student here and through stock open_clip in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from kdkit.core.contracts import DualEncoder
from kdkit.core.errors import ExitCode, KdkitError

_CHECK = Path(__file__).with_name("stock_check.py")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

TEXTS = (
    "a chest x-ray showing pneumonia",
    "Histology, H&E: adenocarcinoma (grade 3).",
    "",
    "no finding in this image of the retina, " * 60,
)
"""Ordinary, with marks, empty, and longer than any context."""
SIZES = ((64, 96), (300, 120), (224, 224), (17, 230))
"""Height and width of the pictures: every way of resizing and cropping shows."""


def fixed_pictures() -> list[Image.Image]:
    """The same RGB pictures every time: noise over a gradient, one per entry of ``SIZES``."""
    rng = np.random.Generator(np.random.PCG64(0))
    pictures = []
    for height, width in SIZES:
        gradient = np.linspace(0, 150, width)[None, :, None]
        pixels = gradient + rng.integers(0, 100, (height, width, 3))
        pictures.append(Image.fromarray(pixels.astype(np.uint8)))
    return pictures


def compare_with_stock(folder: Path, student: DualEncoder, *, tolerance: float) -> tuple[float, float]:
    """Largest differences (image, text) of stock open_clip's features in ``folder`` from the student's.

    Differences are relative to the largest feature, or to 1 where all are smaller.

    Raises:
        KdkitError: when stock open_clip cannot load the folder, or a difference is above ``tolerance``.
    """
    pictures = fixed_pictures()
    ours = {
        "image": student.encode_image(torch.stack([student.preprocess(picture) for picture in pictures])),
        "text": student.encode_text(TEXTS),
    }
    stock = _stock_features(folder, pictures)
    image, text = (_difference(stock[name], ours[name].detach().float().cpu()) for name in ("image", "text"))
    judge(image, text, tolerance=tolerance, where=str(folder))
    return image, text


def judge(image: float, text: float, *, tolerance: float, where: str) -> None:
    """Raise KdkitError unless both differences are numbers not above ``tolerance``."""
    if not (image <= tolerance and text <= tolerance):  # NaN is not <= anything
        raise KdkitError(
            "stock open_clip gives other features than this student; nothing was exported",
            where=where,
            why=f"largest relative difference: image {image:.2g}, text {text:.2g}; allowed {tolerance:.0e}",
            fix="check that the versions of open_clip, timm and transformers are those it was trained with",
            code=ExitCode.FOUND,
        )


def _difference(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    difference = (a - b).abs().max() / max(1.0, float(b.abs().max()))
    return float(difference)


def _stock_features(folder: Path, pictures: list[Image.Image]) -> dict[str, Tensor]:
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for number, picture in enumerate(pictures):
            picture.save(scratch / f"{number}.png")
        (scratch / "texts.json").write_text(json.dumps(TEXTS), encoding="utf-8")
        command = [sys.executable, "-P", str(_CHECK), str(folder), str(scratch), str(scratch / "features.safetensors")]
        done = subprocess.run(
            command, env={**os.environ, **_OFFLINE}, cwd=scratch, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise KdkitError(
                "stock open_clip cannot load this student; nothing was exported",
                where=str(folder),
                why=(done.stderr.strip().splitlines() or ["it ended without a message"])[-1],
                code=ExitCode.FOUND,
            )
        features: dict[str, Tensor] = load_file(scratch / "features.safetensors")
        return features
