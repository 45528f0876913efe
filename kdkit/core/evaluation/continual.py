"""Standard metrics of continual learning, from accuracy over increments.

``R[i, d]`` is the accuracy after increment i on domain d, shape (I, D), in [0, 1] or NaN where not measured
(left out of every mean). ``learned[d]`` is the increment that first taught domain d; ``len(R)`` for one not
yet taught. With one new domain per increment, ``learned = arange(D)`` and these are the papers' definitions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from kdkit.core.evaluation.scores import null_to_nan, to_plain

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ContinualMetrics:
    """All in [0, 1] or differences of such; NaN where there is nothing to average.

    Attributes:
        average: mean over all increments and domains (ZSCL, Zheng et al., ICCV 2023, "Avg.").
        last: mean over domains after the last increment (ZSCL "Last"; GEM's ACC, Lopez-Paz and Ranzato,
            NeurIPS 2017, equation 2).
        transfer: mean over domains of the accuracy before they were taught (ZSCL "Transfer").
        backward_transfer: mean of ``R[-1, d] - R[learned[d], d]`` over domains taught before the last
            increment (GEM, equation 3); below 0 when the student forgets.
        forgetting: mean of ``max_{i < last} R[i, d] - R[last, d]`` over the same domains (Chaudhry et al.,
            ECCV 2018, section 4); above 0 when the student forgets.
    """

    average: float
    last: float
    transfer: float
    backward_transfer: float
    forgetting: float

    def to_json(self) -> dict[str, float | None]:
        """Plain data; NaN becomes null."""
        plain: dict[str, float | None] = to_plain(self)
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, float | None]) -> Self:
        """The inverse of :meth:`to_json`."""
        return cls(**{name: null_to_nan(value) for name, value in data.items()})


def compute_continual_metrics(accuracy: Array, learned: Sequence[int]) -> ContinualMetrics:
    """Metrics of an accuracy matrix (I, D), I >= 1.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> metrics = compute_continual_metrics([[0.9, 0.3], [0.8, 0.9]], learned=[0, 1])
        >>> round(metrics.backward_transfer, 3), metrics.transfer
        (-0.1, 0.3)
    """
    matrix, first = np.asarray(accuracy, dtype=np.float64), np.asarray(learned, dtype=np.int64)
    if matrix.ndim != 2 or len(matrix) == 0 or first.shape != (matrix.shape[1],):
        raise ValueError(f"an accuracy matrix {matrix.shape} does not fit {first.shape} domains")
    end = len(matrix) - 1
    before = [_mean(matrix[:start, d]) for d, start in enumerate(first) if start > 0]
    old = [(matrix[:, d], start) for d, start in enumerate(first) if start < end]
    return ContinualMetrics(
        average=_mean([_mean(column) for column in matrix.T]),
        last=_mean(matrix[-1]),
        transfer=_mean(before),
        backward_transfer=_mean([column[-1] - column[start] for column, start in old]),
        forgetting=_mean([_best(column[:-1]) - column[-1] for column, _ in old]),
    )


def _mean(values: Array | Sequence[float]) -> float:
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")


def _best(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.max()) if len(known) else float("nan")
