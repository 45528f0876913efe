"""Answers of generating models, and how they are asked for; ``contracts`` is where everybody imports them from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp
from typing import Any

from kdkit.core.base.errors import KdkitError

IMAGE_MARK = "<image>"
"""Where an image is in the content of one of a sample's ``extra["messages"]``."""
BOX_FAMILY = "box_family"
"""In the ``extra`` of a sample whose texts hold boxes: the family that wrote them."""
AS_IS = "as-is"
"""The coordinates of a model that takes texts as the data has them."""


@dataclass(frozen=True)
class Decoding:
    """How answers are generated.

    Attributes:
        max_new: tokens of an answer, at most.
        beams: width of a beam search, which returns its ``beams`` best answers; 1 for greedy decoding.
        samples: draw this many answers instead; 0 for none.
        temperature, top_p: of sampling.
        seed: of sampling; the same batch of samples then has the same answers.
        scored: give each token's log-probability too, which costs one more forward pass.
        batch_size: samples at a time; samples of like length go together.

    Raises:
        KdkitError: values that mean nothing.
    """

    max_new: int = 128
    beams: int = 1
    samples: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    scored: bool = False
    batch_size: int = 8

    def __post_init__(self) -> None:
        if min(self.max_new, self.beams, self.batch_size) < 1 or self.samples < 0:
            raise KdkitError("KD-API-001", "max_new, beams and batch_size must be at least 1, samples at least 0")
        if self.samples and self.beams > 1:
            raise KdkitError(
                "KD-API-002", "answers come from a beam search or from sampling, not both", fix="leave one of them out"
            )
        if not (self.temperature > 0 and 0 < self.top_p <= 1):
            raise KdkitError(
                "KD-API-003", "temperature must be above 0, top_p in (0, 1]", fix="samples: 0 is greedy decoding"
            )

    @property
    def answers(self) -> int:
        """Answers per sample."""
        return self.samples or self.beams


SETTINGS = "settings"
"""Key of the identity of a teacher that says itself what of a file of settings changes its answers: the file's name.
Its hash is locked and checked like any other, and is no part of the fingerprint."""
LOGPROBS, OWN_ANSWERS = "logprobs", "own answers"
"""Key and value in the identity of a teacher that has signals for its own answers only: a served model. Its column
holds rows for those answers that have become samples."""
TOP_LOGPROBS = "top_logprobs"
"""Key in the ``extra`` of a sample that such a teacher prepares: :attr:`Answer.top_logprobs` of its answer."""


@dataclass(frozen=True)
class Answer:
    """One generated answer.

    Attributes:
        text: up to the end token; ``ids``: its tokens, with the end token unless it was cut at ``max_new``; empty
            where a server keeps them to itself.
        log_probs: of every token given those before it, at temperature 1; empty unless asked for.
        top_logprobs: JSON from which a teacher with signals for its own answers computes these later, or None.
    """

    text: str
    ids: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()
    top_logprobs: Mapping[str, Any] | None = None

    @property
    def confidence(self) -> float | None:
        """Mean probability of the tokens, in [0, 1]; None where it is not known."""
        return sum(map(exp, self.log_probs)) / len(self.log_probs) if self.log_probs else None
