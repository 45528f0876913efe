"""What a score of a domain holds beside its metrics: subgroups, calibration, curves. Import from
``kdkit.core.contracts``. All are plain data, which goes to JSON and back without loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Estimate = tuple[float, float, float]
"""(value, low, high)."""


@dataclass(frozen=True)
class SubgroupScore:
    """A model on the samples of a domain with one value of a column, such as ``sex`` and ``F``.

    Attributes:
        column, value: which samples.
        count: their number.
        groups: number of groups (patients) that the bootstrap draws; 0 where it draws samples.
        metrics, intervals: as of the domain's score; empty where there are too few samples.
        note: why there are no metrics.
    """

    column: str
    value: str
    count: int
    groups: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class ReliabilityBin:
    """Samples whose confidence lies in ``(low, high]``, their mean ``confidence``, and their ``accuracy``."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class ConformalSets:
    """Sets of classes that hold the true one with a stated probability.

    Attributes:
        target: the stated probability.
        coverage: share of the samples whose set holds the true class.
        size: mean number of classes in a set.
        empty: share of sets without a class.
        threshold: least probability of a class in a set; 0 where all classes are in every set.
        calibrated_on: number of calibration samples.
    """

    target: float
    coverage: Estimate
    size: Estimate
    empty: float
    threshold: float
    calibrated_on: int


@dataclass(frozen=True)
class Calibration:
    """Whether a model's probabilities are what they say.

    Attributes:
        ece: expected calibration error over bins of equal width.
        adaptive_ece: the same over bins of equal numbers of samples.
        brier: mean squared error of the probabilities, summed over classes: 0 to 2.
        bins: of equal width, those with samples; the data of a reliability diagram.
        conformal: None where it is not requested, or the calibration split has no sample of the domain.
    """

    ece: Estimate
    adaptive_ece: Estimate
    brier: Estimate
    bins: tuple[ReliabilityBin, ...]
    conformal: ConformalSets | None = None


@dataclass(frozen=True)
class Confusion:
    """How often a class (row) is taken for another (column); ``counts[i][j]`` samples of class i are called j."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Curve:
    """A curve with its pointwise interval: the survival of a risk group, for example.

    Attributes:
        name: of the curve.
        x, y, low, high: of equal lengths; a step function holds ``y[i]`` from ``x[i]`` on.
        count: number of samples that it is of.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    count: int
