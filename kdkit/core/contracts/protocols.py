"""Protocols: what the objects of plugins do. Importing them imports no torch.

Shapes: B samples in a batch, D width of an embedding, T teachers, M domains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from kdkit.core.contracts.answers import Answer, Decoding

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

Split = Literal["train", "calibration", "test"]
SPLITS: tuple[Split, ...] = ("train", "calibration", "test")
IMAGE, TEXT = "image", "text"
"""Names of the two signals of a dual encoder."""


# --------------------------------------------------------------------------------------- data


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its text.

    Attributes:
        id: stable and unique in the project; the key of everything that is cached.
        image: the file to decode.
        text: the caption.
        domain: what trust and forgetting are measured on (a modality, or a data set).
        label: the class, where known; zero-shot evaluation and trust use samples that have one.
        split: ``train`` teaches, ``calibration`` decides trust, ``test`` reports.
        origin: ``file:line`` (or the file itself), for error messages.
        extra: what a family needs beyond this (boxes, a conversation, a task name).
    """

    id: str
    image: Path
    text: str
    domain: str
    label: str | None = None
    split: Split = "train"
    origin: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


# ------------------------------------------------------------------------------------ teachers


@dataclass(frozen=True, slots=True)
class SignalSpec:
    """One array that a teacher gives per sample: a column of the feature store.

    ``shape`` is that of one row: ``(512,)`` for pooled features, ``(tokens, k)`` for top-k answer logits.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Literal["float16", "float32", "int32", "int64"] = "float16"


@runtime_checkable
class SignalSource(Protocol):
    """What extraction needs from a teacher of any kind, pooled features and token logits alike."""

    @property
    def signals(self) -> tuple[SignalSpec, ...]: ...

    def identity(self) -> Mapping[str, str]:
        """What changes the signal besides the weights: preprocessing, tokenizer, text template."""

    def prepare(self, image: Image, sample: Sample) -> Any:
        """The CPU work for one sample; called from several threads. ``image`` is RGB."""

    def compute(self, items: Sequence[Any]) -> Mapping[str, Tensor]:
        """Signal name -> (B, *shape), for ``items`` made by :meth:`prepare`. No gradient, eval mode, no random
        numbers; where the teacher is live, in a thread beside the one that trains."""


@runtime_checkable
class DualEncoder(Protocol):
    """A CLIP-style model: teacher, or the student at evaluation. Features are NOT normalized."""

    @property
    def embed_dim(self) -> int: ...

    def identity(self) -> Mapping[str, str]:
        """What changes the features besides the weights: preprocessing and tokenizer."""

    def preprocess(self, image: Image) -> Tensor:
        """RGB image -> (3, H, W) float32, deterministic; called from several threads."""

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D)."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B strings -> (B, D). Longer texts than the context are truncated."""


Teacher = DualEncoder | SignalSource


# ------------------------------------------------------------------------------------- student


class Student(Protocol):
    """The one model being trained; in practice an ``nn.Module``.

    ``forward`` maps prepared inputs to named outputs; heads and losses find them by name, and a teacher's
    signal of the same name is what an output is compared with (``image`` and ``text`` for dual encoders).
    Generating students give ``answer_hidden`` (B, A, H), the states that predict an answer's A tokens,
    ``answer_ids`` (B, A) int64, -100 after the end, and ``output_embedding`` (V, H), a parameter: losses make
    logits of them a part at a time.
    """

    @property
    def outputs(self) -> Mapping[str, int]:
        """Output name -> width D, of those to which a head can be attached."""

    @property
    def config(self) -> Mapping[str, Any]:
        """JSON-able; ``factory(**config)`` makes the same architecture again."""

    def identity(self) -> Mapping[str, str]:
        """What changes its prepared inputs: preprocessing and tokenizer."""

    def prepare(self, image: Image, sample: Sample) -> Mapping[str, Tensor]:
        """One sample's inputs on the CPU, equal shapes for all samples; deterministic, thread-safe."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Stacked inputs -> outputs (B, ..., D); a dual encoder's with the scalar ``logit_scale``, exponentiated.

        Rows are gathered over processes, so their shapes must not depend on the batch; an ``nn.Parameter`` among
        the outputs is handed to the losses as it is.
        """

    def save(self, folder: Path) -> None:
        """Write everything that stock libraries and the spec's ``loader`` need, offline, no pickle."""


@runtime_checkable
class Answering(Protocol):
    """A model that answers questions about images: a generating student at evaluation, a teacher of pseudo-labels."""

    def answer(
        self, images: Sequence[Image], samples: Sequence[Sample], decoding: Decoding | None = None
    ) -> Sequence[Sequence[Answer]]:
        """``decoding.answers`` answers to each sample, the likeliest first (drawn ones as they were drawn).

        Args:
            images: the first image of each sample, RGB.
            samples: their ``extra["messages"]`` are answered; their own texts are not looked at.
            decoding: greedy by default.
        """


@runtime_checkable
class ChecksAnswers(Protocol):
    """A generating student, or teacher, that knows without the image which samples it cannot be taught, or asked."""

    def check_answer(self, sample: Sample) -> None:
        """Raise ``KdkitError``, naming the sample, for an answer that ``prepare`` would refuse; what needs the image
        passes."""


# ------------------------------------------------------------------------- losses and aligners


@dataclass(frozen=True, slots=True)
class TeacherView:
    """One teacher's part of a batch.

    Attributes:
        name: the teacher.
        weight: (B,) trust, >= 0; 0 where the teacher has no signal or may not teach. ``target`` rows with
            weight 0 are zeros and must not influence the loss.
        target: signal name -> (B, D_t), or (B, A, D_t) with a row per token of an answer, after target normalization
            (and alignment, in a shared space); a signal that no student output is named after (token logits, ids) as
            it is in the store, (B, *shape).
        student: the student's outputs in the same space as the ``target`` of the same name (through this
            teacher's heads).
    """

    name: str
    weight: Tensor
    target: Mapping[str, Tensor]
    student: Mapping[str, Tensor]


def _whole(x: Tensor) -> Tensor:
    """The total where the samples are the whole batch."""
    return x


@dataclass(frozen=True, slots=True)
class LossInput:
    """What a loss sees: the whole batch over all processes; of one that is a sum over samples, this process's share.

    Attributes:
        student: the student's own outputs: name -> (B, ..., D) float32 (ids int64), parameters, ``logit_scale`` ().
        teachers: one view per teacher of the run.
        domain: (B,) int64 index of each sample's domain.
        total: for losses with ``per_sample`` in their spec: a number () of these samples -> that of the whole batch,
            without gradient, to divide by. Every call of the loss asks equally often, whatever the samples are.
    """

    student: Mapping[str, Tensor]
    teachers: tuple[TeacherView, ...]
    domain: Tensor
    total: Callable[[Tensor], Tensor] = _whole


class Loss(Protocol):
    """An ``nn.Module`` whose ``forward`` returns a scalar; 0 (with a graph) when no row has weight."""

    def __call__(self, batch: LossInput) -> Tensor: ...


class Aligner(Protocol):
    """Maps a teacher's space to another and back; an ``nn.Module`` whose ``state_dict`` is all of it."""

    def fit(self, features: Mapping[str, Tensor], anchor: Mapping[str, Tensor] | None = None, *, seed: int = 0) -> None:
        """Fit on paired rows: signal name (``image``, ``text``) -> (N, in_dim); ``anchor`` (N, out_dim)."""

    def encode(self, name: str, x: Tensor) -> Tensor:
        """(B, in_dim) -> (B, out_dim) for the signal ``name``."""

    def decode(self, name: str, z: Tensor) -> Tensor:
        """(B, out_dim) -> (B, in_dim), the best reconstruction it has."""


class RopeVariant(Protocol):
    """A rotary design for one tower of a vision-language student: where tokens are, and what turns with which axis.

    Rotary plane ``f`` of a token at position ``p`` (axes,) turns by ``sum over axes a of p[a] * frequencies[a, f]``.
    In a language tower text counts on by one, and text alone is 1-D RoPE: 0, 1, 2, ... on every axis; the columns of
    ``frequencies`` add up to those of 1-D RoPE.
    """

    @property
    def tower(self) -> Literal["language", "vision"]:
        """Where it belongs: positions of all tokens, or of one image's patches."""

    @property
    def trainable(self) -> bool:
        """Whether the frequencies are parameters, of each layer and head, that start at :attr:`frequencies`."""

    def positions(self, modality: Tensor, grids: Sequence[tuple[int, int, int]]) -> Tensor:
        """Positions of one sequence, without padding; a pure function.

        Args:
            modality: (S,) 0 for text and 1 for image tokens. Image tokens come in the order of ``grids`` and
                row by row; two images may touch.
            grids: (t, h, w) of each image, in tokens of this tower (merged patches in a language tower).

        Returns:
            (axes, S), int64 or, where positions may be broken numbers, float64: one of both for all sequences.

        Raises:
            KdkitError: when the image tokens are not those of ``grids``.
        """

    def frequencies(self, inverse: Tensor, heads: int = 1) -> Tensor:
        """``inverse`` (F,), 1-D RoPE's falling frequencies of a head of width 2F -> (axes, F) float32, in radians
        per step; (axes, heads, F) where heads differ."""


# --------------------------------------------------------------------------- trust, evaluation


@dataclass(frozen=True)
class TrustTable:
    """Zero-shot accuracy of teachers on the calibration split; all in [0, 1], NaN where not measured.

    Attributes:
        teachers, domains: names of rows and columns.
        accuracy, lower, upper: (T, M) point estimate and two-sided confidence bounds.
        count: (M,) calibration samples; ``chance``: (M,) accuracy of guessing.
        level: the confidence level of the bounds.
    """

    teachers: tuple[str, ...]
    domains: tuple[str, ...]
    accuracy: np.ndarray[Any, Any]
    lower: np.ndarray[Any, Any]
    upper: np.ndarray[Any, Any]
    count: np.ndarray[Any, Any]
    chance: np.ndarray[Any, Any]
    level: float = 0.95


TrustPolicy = Callable[[TrustTable], "np.ndarray[Any, Any]"]
"""Scores -> weights (T, M) in [0, 1]; 0 means: may not teach there."""


class ModelFeatures(Protocol):
    """Features of one model for evaluation, cached (a teacher) or live (the student)."""

    @property
    def name(self) -> str: ...

    def image(self, samples: Sequence[Sample]) -> np.ndarray[Any, Any]:
        """(N, D) float32, unit rows."""

    def text(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        """(N, D) float32, unit rows."""


class ModelAnswers(Protocol):
    """Answers of one model for evaluation, cached (a teacher) or live (the student)."""

    @property
    def name(self) -> str: ...

    def answer(self, samples: Sequence[Sample]) -> Sequence[str]:
        """One text per sample: the answer to its ``extra["messages"]``; its own text is the reference."""


@dataclass(frozen=True)
class DomainScore:
    """One model on one domain. Metrics in [0, 1]; ``intervals`` are (low, high) at ``level``.

    ``outcomes`` holds, for each metric that is a mean over samples, the value of every sample (N,) in the order
    of ``ids``: what two models are compared on sample by sample. One of the name ``similarity``, where there is one,
    is what corrections go by in the place of ``accuracy``: how near an answer is, not whether it is a hit. ``notes``
    says what a reader must know.
    """

    domain: str
    count: int
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    level: float = 0.95
    ids: tuple[str, ...] = ()
    outcomes: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class EvaluationTask(Protocol):
    """Scores a model on samples."""

    def evaluate(self, view: Any, samples: Sequence[Sample]) -> Sequence[DomainScore]:
        """One score per domain that has what the task needs (zero-shot: at least two labels).

        Args:
            view: a :class:`ModelFeatures` or an :class:`ModelAnswers`, as the task's spec says that it ``reads``.
        """


# ------------------------------------------------------------------------------------ progress


class Reporter(Protocol):
    """Where core says what it is doing; the terminal is the CLI's business."""

    def say(self, text: str) -> None:
        """One line for people."""

    def warn(self, text: str) -> None:
        """One line that must not be missed."""

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:
        """Called often; ``done == total`` ends the bar."""


class Silent:
    """The default reporter."""

    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def progress(self, label: str, done: int, total: int, note: str = "") -> None: ...
