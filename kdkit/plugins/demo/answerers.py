"""The demo's two teachers that answer questions, and the shape of its models of that kind. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdkit.plugins.demo.teachers import WEIGHTS

TASKS: tuple[str, ...] = ("vg", "roc", "rc", "mia")
"""The four of ClinKD; docs/answers.md says what each asks."""
SIDE = 84
"""Pixels along the side of a picture as the models see it: 3 x 3 image tokens."""


def model_sizes(hidden: int, layers: int, vision_hidden: int) -> dict[str, Any]:
    """``sizes`` of a ``clinkd`` student of this world: Qwen2-VL's architecture, small, every word one token."""
    from kdkit.plugins.demo.questions import question_words

    return {
        "hidden": hidden,
        "layers": layers,
        "heads": 4,
        "kv_heads": 2,
        "vision_hidden": vision_hidden,
        "vision_layers": 2,
        "vision_heads": 4,
        "words": question_words(),
    }


INPUTS: Mapping[str, Any] = {
    "max_tokens": 64,
    "max_answer": 16,
    "min_pixels": SIDE * SIDE,
    "max_pixels": 112 * 112,  # room for pictures that are not square
    "system": "",
}
"""How all models of this world see a question."""


def create_answerer(**config: Any) -> Any:
    """Factory of the student family ``demo-answerer``: a ``clinkd`` student with 0.3 million random weights, all of
    which are trained; ``config`` is that of ``clinkd`` and all of it has defaults."""
    from kdkit.plugins.students.clinkd.create import create_student

    usual: dict[str, Any] = {"freeze_vision": False, **INPUTS}
    if config.get("init") is None:
        usual["sizes"] = model_sizes(hidden=64, layers=3, vision_hidden=48)
    return create_student(**{**usual, **config})


@dataclass(frozen=True, slots=True)
class Answerer:
    """A teacher that has been asked about pictures of ``modalities``, in ``steps`` batches.

    ``start`` names the teacher from whose weights it goes on, as specialists of one family do; empty: from nothing.
    """

    name: str
    modalities: tuple[str, ...]
    seed: int
    steps: int
    start: str = ""

    @property
    def folder(self) -> Path:
        """Where its shipped weights lie."""
        return WEIGHTS / self.name


ANSWERERS: tuple[Answerer, ...] = (
    Answerer("reader", ("mri", "dermoscopy", "xray"), 201, 1300),
    Answerer("scanner", ("ct",), 202, 500, start="reader"),
)
