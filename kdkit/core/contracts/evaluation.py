"""Protocols of evaluation tasks, and the data that they exchange. Import from ``kdkit.core.contracts``.

Shapes: N samples, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from kdkit.core.contracts.details import Calibration, Confusion, Curve, SubgroupScore
from kdkit.core.contracts.samples import Sample

if TYPE_CHECKING:
    import numpy as np


class ModelFeatures(Protocol):
    """Features of one model for evaluation: stored (teacher) or computed (student)."""

    @property
    def name(self) -> str: ...

    def image(self, samples: Sequence[Sample]) -> np.ndarray[Any, Any]:
        """(N, D) float32, unit rows."""

    def text(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        """(N, D) float32, unit rows, of prompts."""

    def captions(self, samples: Sequence[Sample]) -> np.ndarray[Any, Any]:
        """(N, D) float32, unit rows, of the samples' own texts."""


class ModelAnswers(Protocol):
    """Answers of one model for evaluation: stored (teacher) or generated (student)."""

    @property
    def name(self) -> str: ...

    def answer(self, samples: Sequence[Sample]) -> Sequence[str]:
        """One answer per sample, to its ``extra["messages"]``; ``sample.text`` is the reference."""


@runtime_checkable
class ModelLikelihoods(Protocol):
    """Answers of a model that may also tell how likely given ones are."""

    def log_likelihoods(self, samples: Sequence[Sample]) -> Sequence[Sequence[float]] | None:
        """As :meth:`ScoresAnswers.log_likelihoods`; None if the model cannot tell."""


@runtime_checkable
class PartialOutputs(Protocol):
    """Outputs that exist for some samples only."""

    def covered(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Samples of the domains that are covered completely."""


@dataclass(frozen=True)
class DomainScore:
    """Score of one model on one domain. Metrics are in [0, 1]; ``intervals`` are (low, high) at ``level``.

    ``outcomes`` holds the value of every sample (N,), in the order of ``ids``, for each metric that is a mean over
    samples; paired comparisons of two models use it. Corrections use the outcome ``similarity`` if present, else
    ``accuracy``. ``notes`` are remarks for the reader.

    ``figures`` are (value, low, high) of what has no scale of 0 to 1, such as a median rank. ``pooled`` names metrics
    and figures that depend on the samples of all domains. Where a model lacks a domain, kdkit drops them.

    ``draws`` are the (R,) bootstrap values of metrics without outcomes, such as AUC, but not of parts of one
    (``auc/Edema``). Equal samples and seeds give equal resamples for every model, so the difference of two models'
    draws is their paired bootstrap. ``groups`` is the number of groups (patients) that the bootstrap draws, 0 where it
    draws samples; ``units`` are the group of each sample, as a number, if any has several.
    ``subgroups``, ``calibration``, ``confusion`` and ``curves`` are for reports.
    """

    domain: str
    count: int
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    level: float = 0.95
    ids: tuple[str, ...] = ()
    outcomes: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    figures: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    pooled: tuple[str, ...] = ()
    draws: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    groups: int = 0
    units: tuple[int, ...] = ()
    subgroups: tuple[SubgroupScore, ...] = ()
    calibration: Calibration | None = None
    confusion: Confusion | None = None
    curves: tuple[Curve, ...] = ()


class EvaluationTask(Protocol):
    """Scores a model on samples."""

    def evaluate(self, view: Any, samples: Sequence[Sample]) -> Sequence[DomainScore]:
        """One score per domain that the task can score (zero-shot: at least two labels).

        Args:
            view: a :class:`ModelFeatures` or a :class:`ModelAnswers`, according to ``reads`` of the task's spec.
        """


@runtime_checkable
class ExplainsSkips(Protocol):
    """An evaluation task that says why it cannot score a domain."""

    def why_skipped(self, samples: Sequence[Sample]) -> str:
        """Why ``samples``, all of one domain, get no score: ``all its captions are equal``."""


@dataclass(frozen=True)
class Method:
    """How a task came to its figures, beyond its options.

    Attributes:
        facts: name -> text, for reports, pages and model cards.
        private: names of facts that stay on this machine, such as an address.
    """

    facts: Mapping[str, str]
    private: tuple[str, ...] = ()


@runtime_checkable
class StatesMethod(Protocol):
    """An evaluation task whose figures depend on something that reports must state, such as a served model."""

    def method(self) -> Method:
        """Called once all models are scored."""


@runtime_checkable
class GradesAnswers(Protocol):
    """An evaluation task that grades answers without intervals; chance is then measured faster and more finely."""

    def question_type(self, sample: Sample) -> str:
        """Questions of one type can be answered by one fixed answer, such as *yes*."""

    def grade(self, samples: Sequence[Sample], answers: Sequence[str]) -> np.ndarray[Any, Any]:
        """(N,) the ``accuracy`` of each answer, in [0, 1]; all samples are of one domain."""


@runtime_checkable
class ComparesAnswers(Protocol):
    """An evaluation task that compares answers with each other, without a reference, to choose the best of several."""

    def is_free_text(self, sample: Sample) -> bool:
        """Whether answers are texts that a dual encoder can compare with the image: no boxes, no *yes* or *no*."""

    def agreement(self, sample: Sample, answers: Sequence[str]) -> np.ndarray[Any, Any]:
        """(n, n) how alike two of n answers to one question are, symmetric, in [0, 1]; ``sample.text`` is not read."""
