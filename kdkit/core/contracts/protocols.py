"""Protocols of plugin objects, and the data that they exchange. Import from ``kdkit.core.contracts``.

Shapes: B samples in a batch, D width of an embedding, T teachers, M domains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from kdkit.core.contracts.answers import Answer, Decoding
from kdkit.core.contracts.samples import Sample

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

IMAGE, TEXT = "image", "text"
"""Names of the two signals of a dual encoder."""
PREPROCESSING = "preprocessing"
"""Key in a teacher's identity: all that its inputs depend on besides the image. Dual encoders of one class that state
the same share their prepared images."""
PRECISION = "precision"
"""Key in a teacher's identity: torch's name of the precision of its computation, such as ``bfloat16``."""
IMPORTED = "imported"
"""Key in the identity of a teacher whose features were imported: its model is not here, so it computes nothing."""


# ------------------------------------------------------------------------------------ teachers


@dataclass(frozen=True, slots=True)
class SignalSpec:
    """One named array per sample, stored in a teacher's column of the feature store.

    ``shape`` is the shape of a row: ``(512,)`` for pooled features, ``(tokens, k)`` for top-k answer logits.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Literal["float16", "float32", "int32", "int64", "uint8"] = "float16"


@runtime_checkable
class SignalSource(Protocol):
    """A teacher with any signals: pooled features, token logits, ..."""

    @property
    def signals(self) -> tuple[SignalSpec, ...]: ...

    def identity(self) -> Mapping[str, str]:
        """Everything besides the weights that changes the signals: preprocessing, tokenizer, text template."""

    def prepare(self, image: Image, sample: Sample) -> Any:
        """CPU work for one sample; called from several threads. ``image`` is RGB."""

    def compute(self, items: Sequence[Any]) -> Mapping[str, Tensor]:
        """Signal name -> (B, *shape), for ``items`` from :meth:`prepare`. No gradient, eval mode, deterministic. A live
        teacher runs in a thread beside training."""


@runtime_checkable
class TextEncoder(Protocol):
    """A model of texts alone, such as a BERT: a teacher of the student's text side. Features are NOT normalized."""

    @property
    def embed_dim(self) -> int: ...

    def identity(self) -> Mapping[str, str]:
        """Everything besides the weights that changes the features: tokenizer and pooling."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B strings -> (B, D). Texts longer than the context are truncated."""


@runtime_checkable
class DualEncoder(Protocol):
    """A CLIP-style model: a teacher, or the student at evaluation. Features are NOT normalized."""

    @property
    def embed_dim(self) -> int: ...

    def identity(self) -> Mapping[str, str]:
        """Everything besides the weights that changes the features: preprocessing and tokenizer."""

    def preprocess(self, image: Image) -> Tensor:
        """RGB image -> (3, H, W) float32, deterministic; called from several threads."""

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D)."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B strings -> (B, D). Texts longer than the context are truncated."""


Teacher = DualEncoder | TextEncoder | SignalSource


@runtime_checkable
class LimitsTexts(Protocol):
    """Optional, for a teacher that truncates texts: ``kdkit add-teacher`` compares it with the catalogue."""

    @property
    def context_length(self) -> int:
        """Tokens of a text, with special ones."""


@runtime_checkable
class CountsTokens(LimitsTexts, Protocol):
    """Optional, for a model with a tokenizer: ``kdkit data check`` counts the texts that it truncates."""

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Tokens of each text before it is truncated, including special ones."""


@runtime_checkable
class NeedsSignals(Protocol):
    """Optional, for a loss whose options decide what it needs: a run without it is refused before an extraction."""

    @property
    def needed_signals(self) -> Sequence[str]:
        """Signals of which at least one teacher must give each."""


# ------------------------------------------------------------------------------------- student


class Student(Protocol):
    """The model being trained, an ``nn.Module``.

    ``forward`` maps prepared inputs to named outputs. Losses compare an output with the teacher signal of the same
    name (``image`` and ``text`` for dual encoders). Generating students return ``answer_hidden`` (B, A, H), the states
    that predict an answer's A tokens; ``answer_ids`` (B, A) int64, -100 after the end; and ``output_embedding`` (V, H),
    a parameter. Losses compute logits from these in chunks.
    """

    @property
    def outputs(self) -> Mapping[str, int]:
        """Output name -> width D, for outputs that can have a head."""

    @property
    def config(self) -> Mapping[str, Any]:
        """JSON-able; ``factory(**config)`` makes the same architecture."""

    def identity(self) -> Mapping[str, str]:
        """Everything that changes its prepared inputs: preprocessing and tokenizer."""

    def prepare(self, image: Image, sample: Sample) -> Mapping[str, Tensor]:
        """Inputs of one sample, on the CPU, of equal shape for all samples; deterministic, thread-safe."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Stacked inputs -> outputs (B, ..., D). A dual encoder adds the scalar ``logit_scale``, exponentiated.

        Rows are gathered over ranks, so their shapes must not depend on the batch. An ``nn.Parameter`` among the
        outputs is passed to the losses unchanged.
        """

    def save(self, folder: Path) -> None:
        """Write all files that stock libraries and the spec's ``loader`` need, without pickle."""


@runtime_checkable
class AltersInputs(Protocol):
    """A student whose inputs can be altered at random, so that its previous version can teach it on more than the
    samples that are here."""

    def alter(self, inputs: Mapping[str, Tensor], seeds: Tensor) -> Mapping[str, Tensor]:
        """Altered copies of stacked inputs, with the same shapes, on their device.

        Args:
            inputs: of B samples, from :meth:`Student.prepare`.
            seeds: (B,) int64; what happens to a row follows from the row and its own seed alone.
        """


@runtime_checkable
class Answering(Protocol):
    """A model that answers questions about images: a generating student, or a teacher of pseudo-labels."""

    def answer(
        self, images: Sequence[Image], samples: Sequence[Sample], decoding: Decoding | None = None
    ) -> Sequence[Sequence[Answer]]:
        """``decoding.answers`` answers to each sample, most likely first; sampled answers are unordered.

        Args:
            images: the first image of each sample, RGB.
            samples: their ``extra["messages"]`` are answered; their ``text`` is ignored.
            decoding: greedy by default.
        """


@runtime_checkable
class ScoresAnswers(Protocol):
    """A generating model that can tell how likely given answers are."""

    def log_likelihoods(self, images: Sequence[Image], samples: Sequence[Sample]) -> Sequence[Sequence[float]]:
        """Log-probability of each token of a sample's ``text``, with the token that ends it, as the answer to its
        ``extra["messages"]``; at temperature 1. Arguments as of :meth:`Answering.answer`."""


@runtime_checkable
class ChecksAnswers(Protocol):
    """A generating model that can check samples without decoding their images."""

    def check_answer(self, sample: Sample) -> None:
        """Raise ``KdkitError``, naming the sample, if ``prepare`` would reject its answer. Checks that need the image
        are left to ``prepare``."""


# ------------------------------------------------------------------------- losses and aligners


@dataclass(frozen=True, slots=True)
class TeacherView:
    """One teacher's part of a batch.

    Attributes:
        name: the teacher.
        weight: (B,) trust, >= 0; 0 where the teacher has no signal or must not teach. ``target`` rows of weight 0
            are zeros and must not influence the loss.
        target: signal name -> (B, D_t), or (B, A, D_t) with a row per answer token, after target normalization and
            (in a shared space) alignment. Signals without a student output of that name (token logits, ids) are
            unchanged: (B, *shape).
        student: the student's outputs, projected by this teacher's heads into the space of ``target``. For ``by_rows``
            losses, of the rows in ``LossInput.rows`` alone.
    """

    name: str
    weight: Tensor
    target: Mapping[str, Tensor]
    student: Mapping[str, Tensor]


def _whole(x: Tensor) -> Tensor:
    """The total, or all rows, if this rank has the global batch."""
    return x


def _all_rows() -> slice:
    return slice(None)


@dataclass(frozen=True, slots=True)
class CaptionView:
    """The samples' own texts as a source of knowledge beside the teachers.

    Attributes:
        weight: (B,) trust in the texts, in [0, 1]; 0 where a sample has no text or must not teach by it.
        text: (B,) int64; equal numbers for equal texts.
    """

    weight: Tensor
    text: Tensor


@dataclass(frozen=True, slots=True)
class LossInput:
    """Input of a loss: the global batch, or, for ``per_sample`` losses, this rank's shard.

    One rank has the whole batch. Of several ranks, each computes a share of a ``per_sample`` or ``by_rows`` loss, and
    kdkit adds the values and gradients of all shares; they compute other losses for the whole batch, each the same.

    Attributes:
        student: the student's outputs: name -> (B, ..., D) float32 (ids int64), parameters, ``logit_scale`` ().
        teachers: one view per teacher of the run.
        domain: (B,) int64 domain index of each sample.
        captions: the texts of the samples; None: all texts differ and have weight 1.
        total: for losses in shares: sums a tensor of this rank over all ranks, without gradient, for a denominator. It
            is a collective operation: call it equally often for every batch.
        rows: for ``by_rows`` losses: the rows of the batch whose terms this rank computes. ``TeacherView.student`` has
            these rows alone, (b, D); all other rows are those of the global batch.
        gather: for ``by_rows`` losses: (b, ...) of these rows -> (B, ...) of all ranks' rows, without gradient; a
            collective operation.
    """

    student: Mapping[str, Tensor]
    teachers: tuple[TeacherView, ...]
    domain: Tensor
    total: Callable[[Tensor], Tensor] = _whole
    captions: CaptionView | None = None
    rows: slice = field(default_factory=_all_rows)
    gather: Callable[[Tensor], Tensor] = _whole


class Loss(Protocol):
    """An ``nn.Module``; ``forward`` returns a scalar, which is 0 with a graph if all weights are 0."""

    def __call__(self, batch: LossInput) -> Tensor: ...


class JointLosses(Protocol):
    """Computes several losses of the same rows at once: what ``LossSpec.together`` names."""

    def __call__(
        self, losses: Sequence[Loss], batches: Sequence[LossInput], weights: Sequence[float]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The weighted sum of the losses (), with a graph, and the value () of each, without.

        Args:
            batches: the input of each loss; the student's outputs are the same tensors in all, labels may differ.
        """


class Aligner(Protocol):
    """Maps a teacher's feature space to another and back; an ``nn.Module`` with its whole state in ``state_dict``."""

    def fit(self, features: Mapping[str, Tensor], anchor: Mapping[str, Tensor] | None = None, *, seed: int = 0) -> None:
        """Fit on paired rows: signal name (``image``, ``text``) -> (N, in_dim); ``anchor`` (N, out_dim)."""

    def encode(self, name: str, x: Tensor) -> Tensor:
        """(B, in_dim) -> (B, out_dim) for the signal ``name``."""

    def decode(self, name: str, z: Tensor) -> Tensor:
        """(B, out_dim) -> (B, in_dim), the best reconstruction."""


class RopeVariant(Protocol):
    """A rotary position design for one tower of a vision-language student: token positions and frequencies per axis.

    Rotary plane ``f`` of a token at position ``p`` (axes,) is rotated by ``sum over axes a of p[a] * frequencies[a,
    f]``. In a language tower each text token advances by one, so a text without images has 1-D RoPE's positions 0, 1,
    2, ... on every axis. The columns of ``frequencies`` sum to 1-D RoPE's frequencies.
    """

    @property
    def tower(self) -> Literal["language", "vision"]:
        """The tower: ``language`` positions all tokens, ``vision`` the patches of one image."""

    @property
    def trainable(self) -> bool:
        """Frequencies are parameters of each layer and head, initialized by :meth:`frequencies`."""

    def positions(self, modality: Tensor, grids: Sequence[tuple[int, int, int]]) -> Tensor:
        """Positions of one sequence without padding; a pure function.

        Args:
            modality: (S,) 0 for text and 1 for image tokens. Image tokens are in the order of ``grids``, row by row;
                images may be adjacent.
            grids: (t, h, w) of each image, in tokens of this tower (merged patches in a language tower).

        Returns:
            (axes, S), int64, or float64 if positions may be fractional; the same dtype for all sequences.

        Raises:
            KdkitError: the image tokens do not match ``grids``.
        """

    def frequencies(self, inverse: Tensor, heads: int = 1) -> Tensor:
        """``inverse`` (F,), 1-D RoPE's decreasing frequencies of a head of width 2F -> (axes, F) float32, in radians
        per step; (axes, heads, F) if heads differ."""


# --------------------------------------------------------------------------------------- trust


CAPTIONS = "@captions"
"""Name of the captions where they stand beside teachers as a source of knowledge; no teacher can have it."""


TrustBasis = Literal["label", "caption", "list"]
"""What trust is measured by: labels (zero-shot accuracy, a probe, or answers), captions (their retrieval), or lists of
samples that were imported with a teacher's features."""


@dataclass(frozen=True)
class TrustTable:
    """Accuracy of teachers on the calibration split; values in [0, 1], NaN if not measured.

    A table per sample has a column for each sample instead of a domain; its bounds are the score itself.

    Attributes:
        teachers, domains: names of rows and columns; a last row :data:`CAPTIONS` is that of the captions.
        accuracy, lower, upper: (T, M) point estimate and two-sided confidence bounds.
        count: (M,) number of calibration samples; ``chance``: (M,) accuracy at chance level.
        level: the confidence level of the bounds.
        probed: teachers that give one signal alone, ``image`` or ``text`` -> that signal, whose features probes with
            few labels per class classified, instead of prompts.
        parts: probed teacher -> domain -> classifier -> its accuracy; ``accuracy`` is their mean.
        by: what the accuracy was measured by.
    """

    teachers: tuple[str, ...]
    domains: tuple[str, ...]
    accuracy: np.ndarray[Any, Any]
    lower: np.ndarray[Any, Any]
    upper: np.ndarray[Any, Any]
    count: np.ndarray[Any, Any]
    chance: np.ndarray[Any, Any]
    level: float = 0.95
    probed: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    by: TrustBasis = "label"


TrustPolicy = Callable[[TrustTable], "np.ndarray[Any, Any]"]
"""Accuracies -> weights (T, M) in [0, 1]; with weight 0 a teacher does not teach that domain."""
