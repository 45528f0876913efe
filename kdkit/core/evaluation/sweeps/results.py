"""What the finished runs of each variation say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdkit.core.evaluation.run_comparison import RunEffect
from kdkit.core.evaluation.sweeps.record import SweptVariation

MISSING = "–"


@dataclass(frozen=True)
class VariationResult:
    """What the finished runs of a variation say.

    Attributes:
        seeds: of the finished runs.
        accuracies: seed -> domain -> accuracy in [0, 1].
        effect: the change against the variation that it is compared with; None for that one, and without a common seed.
        compared: seeds that both have.
    """

    variation: SweptVariation
    seeds: tuple[int, ...]
    accuracies: Mapping[int, Mapping[str, float]]
    effect: RunEffect | None = None
    compared: tuple[int, ...] = ()

    @property
    def means(self) -> tuple[float, ...]:
        """Mean over the compared domains, for each finished seed."""
        return tuple(float(np.mean([found[d] for d in self.variation.domains])) for found in self.accuracies.values())

    @property
    def mean(self) -> float:
        """Over seeds and the compared domains; NaN without a finished run."""
        return float(np.mean(self.means)) if self.means else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation between seeds; NaN with fewer than two."""
        return spread_of(self.means)

    def domain(self, name: str) -> float:
        """Accuracy in a domain, mean over seeds; NaN without a finished run."""
        return float(np.mean([found[name] for found in self.accuracies.values()])) if self.accuracies else math.nan

    def domain_spread(self, name: str) -> float:
        """Standard deviation between seeds in a domain; NaN with fewer than two."""
        return spread_of([found[name] for found in self.accuracies.values()])

    @property
    def worst(self) -> str:
        """The compared domain with the lowest accuracy; empty without a finished run."""
        return min(self.variation.domains, key=self.domain) if self.accuracies else ""

    def to_json(self) -> dict[str, Any]:
        """All figures."""
        effect = self.effect
        return {
            **{key: getattr(self.variation, key) for key in ("name", "values", "against", "steps", "impossible")},
            "parts": list(self.variation.parts),
            "domains": list(self.variation.domains),
            "seeds": list(self.seeds),
            "accuracy": {"mean": self.mean, "spread": self.spread},
            "per_seed": {str(seed): dict(found) for seed, found in self.accuracies.items()},
            "change": None if effect is None else effect.mean.to_json(),
            "changes": {} if effect is None else {d: change.to_json() for d, change in effect.domains.items()},
            "compared_seeds": list(self.compared),
        }


def spread_of(values: Sequence[float]) -> float:
    """Standard deviation with N - 1; NaN of fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def of_part(results: Sequence[VariationResult], part: str) -> tuple[VariationResult, ...]:
    """Results of one part of a question; all for the empty part."""
    return tuple(result for result in results if not part or part in result.variation.parts)


def percent(value: float) -> str:
    """``0.912`` as ``91.2``; a dash for NaN."""
    return MISSING if math.isnan(value) else f"{100 * value:.1f}"
