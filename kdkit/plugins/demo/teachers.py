"""The teachers of the demo. Light: imports no library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""Folders of the shipped teachers, one per name: open_clip models and Qwen2-VL models."""
TASKS: tuple[str, ...] = ("vg", "roc", "rc", "mia")
"""The four tasks of ClinKD; see docs/reference/answers.md."""


@dataclass(frozen=True, slots=True)
class Specialist:
    """A dual encoder that was trained on ``domains``, with features of ``embed_dim`` numbers.

    ``steps`` is the length of its training, so some specialists are better than others.
    """

    name: str
    domains: tuple[str, ...]
    embed_dim: int
    seed: int
    steps: int = 1400


SPECIALISTS: tuple[Specialist, ...] = (
    Specialist("radio", ("ct", "mri", "xray"), 96, 101),
    Specialist("eye", ("ultrasound", "fundus", "oct"), 128, 102),
    Specialist("tissue", ("dermoscopy", "histology", "endoscopy"), 64, 113),
    Specialist("point", ("ct", "xray", "ultrasound"), 64, 104, steps=800),
    Specialist("surface", ("fundus", "dermoscopy", "endoscopy"), 96, 105, steps=800),
)
"""Six domains have two teachers, one of them trained less; mri, histology and oct have one."""


@dataclass(frozen=True, slots=True)
class Answerer:
    """A teacher that was trained on questions about ``modalities`` for ``steps`` batches.

    Training started from the weights of the teacher ``start``, as specialists of one family do, or from random ones.
    """

    name: str
    modalities: tuple[str, ...]
    seed: int
    steps: int
    start: str = ""


ANSWERERS: tuple[Answerer, ...] = (
    Answerer("reader", ("mri", "dermoscopy", "xray"), 201, 1300),
    Answerer("scanner", ("ct",), 202, 500, start="reader"),
)
