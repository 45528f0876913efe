"""The same pictures and texts through a student here and through stock libraries in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.tensors import read_tensors
from kdkit.core.contracts import DualEncoder

TOLERANCE = 1e-5
"""Largest difference of a feature from the version's own, relative to the largest feature (at least to 1)."""

_CHECK = Path(__file__).with_name("stock_check.py")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_COMMIT, _CACHE = "0" * 40, "cache"

TEXTS = (
    "a chest x-ray showing pneumonia",
    "Histology, H&E: adenocarcinoma (grade 3).",
    "",
    "no finding in this image of the retina, " * 60,
)
"""Ordinary, with marks, empty, and longer than any context."""
SIZES = ((64, 96), (300, 120), (224, 224), (17, 230))
"""Height and width of the pictures: every way of resizing and cropping shows."""


@dataclass(frozen=True)
class Compared:
    """How far stock libraries are from a student.

    Attributes:
        differences: library -> largest differences (image, text), relative to the largest feature, or to 1 where
            all are smaller.
        environment: versions of the libraries.
    """

    differences: Mapping[str, tuple[float, float]]
    environment: Mapping[str, str]


def fixed_pictures() -> list[Image.Image]:
    """The same RGB pictures every time: noise over a gradient, one per entry of ``SIZES``."""
    rng = np.random.Generator(np.random.PCG64(0))
    pictures = []
    for height, width in SIZES:
        gradient = np.linspace(0, 150, width)[None, :, None]
        pixels = gradient + rng.integers(0, 100, (height, width, 3))
        pictures.append(Image.fromarray(pixels.astype(np.uint8)))
    return pictures


def compare_with_stock(
    lines: Mapping[str, str],
    student: DualEncoder,
    *,
    where: str,
    repo: str = "",
    folder: Path | None = None,
) -> Compared:
    """Run the lines of a card, without network, and compare what they load with the student.

    Args:
        lines: library (``open_clip``, ``transformers``) -> Python that defines ``model``, ``tokenizer`` and
            ``preprocess`` (``processor`` in transformers); may read the picture ``image.png``.
        student: in eval mode on the CPU; its features are the reference.
        where: what messages name.
        repo, folder: make ``folder`` stand in the Hub's cache as ``repo``: what the lines would download.

    Raises:
        KdkitError: exit code 1 when a library cannot load it, or a difference is above ``TOLERANCE``.
    """
    pictures = fixed_pictures()
    ours = {
        "image": student.encode_image(torch.stack([student.preprocess(picture) for picture in pictures])),
        "text": student.encode_text(TEXTS),
    }
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        save_pictures(pictures, scratch)
        (scratch / "texts.json").write_text(json.dumps(TEXTS), encoding="utf-8")
        for library, code in lines.items():
            (scratch / f"{library}.lines").write_text(code, encoding="utf-8")
        if folder is not None:
            put_into_cache(scratch, repo, folder)
        errors, environment = run_check(_CHECK, scratch, where)
        theirs = read_tensors(scratch / "features.safetensors")
    differences = {}
    for library in lines:
        if library in errors:
            raise cannot_load(library, where, errors[library])
        image, text = (_difference(theirs[f"{library}.{kind}"], ours[kind]) for kind in ("image", "text"))
        judge(image, text, library=library, where=where)
        differences[library] = (image, text)
    return Compared(differences, environment)


def judge(image: float, text: float, *, library: str, where: str) -> None:
    """Raise KdkitError unless both differences are numbers not above ``TOLERANCE``."""
    if not (image <= TOLERANCE and text <= TOLERANCE):  # NaN is not <= anything
        raise KdkitError(
            "KD-REL-001",
            f"stock {library} gives other features than this student; nothing was written",
            where=where,
            why=f"largest relative difference: image {image:.2g}, text {text:.2g}; allowed {TOLERANCE:.0e}",
            fix="check that the versions of open_clip, timm and transformers are those it was trained with",
            code=ExitCode.FOUND,
        )


def _difference(a: Tensor, b: Tensor) -> float:
    b = b.detach().float().cpu()
    if a.shape != b.shape:
        return float("inf")
    difference = (a - b).abs().max() / max(1.0, float(b.abs().max()))
    return float(difference)


def put_into_cache(scratch: Path, repo: str, folder: Path, commit: str = _COMMIT) -> None:
    """Lay ``folder`` out below ``scratch`` as the Hub's client would have after downloading all of ``repo``."""
    place = scratch / _CACHE / f"models--{repo.replace('/', '--')}"
    (place / "refs").mkdir(parents=True, exist_ok=True)
    (place / "refs" / "main").write_text(commit, encoding="utf-8")
    (place / "snapshots").mkdir(exist_ok=True)
    (place / "snapshots" / commit).symlink_to(folder.absolute(), target_is_directory=True)


def save_pictures(pictures: Sequence[Image.Image], scratch: Path) -> None:
    """As ``0.png``, ``1.png``, ...; the first one is the ``image.png`` of a card's lines, too."""
    for number, picture in enumerate(pictures):
        picture.save(scratch / f"{number}.png")
    pictures[0].save(scratch / "image.png")


def run_check(check: Path, scratch: Path, where: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Run the file ``check`` on ``scratch``, in a process without network and with the cache in ``scratch`` alone.

    Returns:
        What it could not load and why, and the versions of the libraries: its ``errors.json``, ``environment.json``.

    Raises:
        KdkitError: exit code 1 when it fails.
    """
    # A cache of its own even where nothing is put into it: what happens to lie in the user's must not help.
    home = {"HF_HOME": str(scratch), "HF_HUB_CACHE": str(scratch / _CACHE), "HF_ENDPOINT": "https://huggingface.co"}
    done = subprocess.run(
        [sys.executable, "-P", str(check), str(scratch)],
        env={**os.environ, **_OFFLINE, **home},
        cwd=scratch,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["it ended without a message"]
        raise cannot_load("libraries", where, lines[-1])
    errors, environment = (json.loads((scratch / f"{name}.json").read_text()) for name in ("errors", "environment"))
    return errors, environment


def cannot_load(what: str, where: str, why: str) -> KdkitError:
    """The error for a stock library that does not take the lines of a card."""
    return KdkitError(
        "KD-REL-002",
        f"stock {what} cannot load this student; nothing was written",
        where=where,
        why=why,
        code=ExitCode.FOUND,
    )
