"""Answers of generating models and the settings that generate them. Import from ``kdkit.core.contracts``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts.samples import Sample

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

IMAGE_MARK = "<image>"
"""Position of an image in the content of a message in a sample's ``extra["messages"]``."""
BOX_FAMILY = "box_family"
"""Key in a sample's ``extra``: the coordinate convention of the boxes in its texts."""
AS_IS = "as-is"
"""Coordinate convention of a model that reads and writes boxes unconverted."""
MAX_ANSWER = 128
"""Default length of an answer in tokens, of students, teachers and :class:`Decoding`: what they agree on."""


@dataclass(frozen=True)
class Decoding:
    """How answers are generated.

    Attributes:
        max_new: maximum number of tokens of an answer.
        beams: beam width; a beam search returns its ``beams`` best answers. 1 is greedy decoding.
        samples: number of answers to sample instead; 0 for none.
        temperature, top_p: of sampling.
        seed: of sampling; equal batches then give equal answers.
        seeds: a seed of its own for each sample, for one sampled answer each. An answer then depends on its own seed
            alone, not on the batch (to rounding). A model without this uses ``seed``.
        scored: also return each token's log-probability, at the cost of one forward pass.
        batch_size: samples per batch, at most; samples of similar length are batched together.

    Raises:
        KdkitError: values out of range.
    """

    max_new: int = MAX_ANSWER
    beams: int = 1
    samples: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    seeds: tuple[int, ...] = ()
    scored: bool = False
    batch_size: int = 16

    def __post_init__(self) -> None:
        if min(self.max_new, self.beams, self.batch_size) < 1 or self.samples < 0:
            raise KdkitError(
                "KD-API-001",
                "max_new, beams and batch_size must be at least 1, samples at least 0",
                fix="correct the value",
            )
        if self.samples and self.beams > 1:
            raise KdkitError("KD-API-002", "beams and samples exclude each other", fix="leave one of them out")
        if not (self.temperature > 0 and 0 < self.top_p <= 1):
            raise KdkitError(
                "KD-API-003", "temperature must be above 0, top_p in (0, 1]", fix="samples: 0 is greedy decoding"
            )

        if self.seeds and self.samples != 1:
            raise KdkitError(
                "KD-API-440", "a seed for each sample draws one answer to it", fix="set samples to 1, or give no seeds"
            )

    @property
    def answers(self) -> int:
        """Answers per sample."""
        return self.samples or self.beams


SETTINGS = "settings"
"""Key in a teacher's identity: the name of its settings file. The identity lists the settings that change answers, so
the file's hash is locked and checked but is not part of the fingerprint."""
LOGPROBS, OWN_ANSWERS, ANY_ANSWERS = "logprobs", "own answers", "any answers"
"""Key and values in the identity of a served model with signals, which hold its likeliest tokens alone: for its own
answers only, or for given ones."""
TOP_LOGPROBS = "top_logprobs"
"""Key in a sample's ``extra``: the :attr:`Answer.top_logprobs` of the answer that became the sample."""


OWN_TOKENS = "own_tokens"
"""Key in a sample's ``extra``, set by kdkit during training: the :class:`OwnTokens` of the sample's text."""


@dataclass(frozen=True)
class OwnTokens:
    """The tokens of an answer as the student wrote them; a text may be split in several ways.

    A model with this tokenizer prepares these in place of the text's own tokens, as far as they fit: up to the first
    token that ends an answer or has no place in one. Another model splits the text itself.

    Attributes:
        tokenizer: as in the ``identity()`` of the student.
        ids: with the end token unless the answer was cut.
    """

    tokenizer: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class AttentionMap:
    """How much each token of an answer depends on each cell of the image.

    Attributes:
        tokens: of the answer, as texts; A of them.
        weights: (A, rows, columns) float32, at least 0: shares of a token's attention on the cells of the sample's
            first image, from its top left corner. A token's weights sum to the share on this image, at most 1.
        boxes: of the answer: left, top, right, bottom in fractions of the image.
    """

    tokens: tuple[str, ...]
    weights: np.ndarray[Any, Any]
    boxes: tuple[tuple[float, float, float, float], ...] = ()


@runtime_checkable
class ShowsAttention(Protocol):
    """A generating model that can tell where an answer looks."""

    def attention(self, image: Image, sample: Sample) -> AttentionMap:
        """On the first image of the sample, whose ``text`` is the answer.

        Raises:
            KdkitError: the model cannot tell, or the sample cannot be prepared.
        """


@dataclass(frozen=True)
class Answer:
    """One generated answer.

    Attributes:
        text: up to the end token.
        ids: its tokens, with the end token unless it was cut at ``max_new``; empty if a server does not return them.
        log_probs: log-probability of each token given the tokens before it, at temperature 1; empty if not requested.
        top_logprobs: JSON from which the teacher later computes the signals of this answer, or None.
    """

    text: str
    ids: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()
    top_logprobs: Mapping[str, Any] | None = None

    @property
    def confidence(self) -> float | None:
        """Mean probability of the tokens, in [0, 1]; None if unknown."""
        return sum(map(exp, self.log_probs)) / len(self.log_probs) if self.log_probs else None


@runtime_checkable
class Served(Protocol):
    """A model behind an address, where another one may answer tomorrow."""

    def canary(self) -> Mapping[str, Any]:
        """What the model now says to a fixed request; plain JSON without addresses or keys."""

    def require_same(self, canary: Mapping[str, Any]) -> None:
        """Raise ``KdkitError`` if the model now says something else than in an earlier ``canary``."""
