"""Which samples of a batch have an answer of the student's own, and which teachers teach along it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kdkit.core.distill.plan.types import Floats


@dataclass(frozen=True)
class OwnRows:
    """A pure function of the run's seed and the step.

    Attributes:
        share: probability that a sample has an own answer, if a scorer may teach it; GKD's lambda.
        scorers: teachers that can give their distributions along any answer: the live ones.
        seed: of the run.

    Example:
        >>> weights = {"live": np.array([1, 0.5, 0], dtype=np.float32), "stored": np.ones(3, dtype=np.float32)}
        >>> given, own = OwnRows(share=1.0, scorers=frozenset({"live"}), seed=0).split(weights, step=0)
        >>> {name: weight.tolist() for name, weight in given.items()}
        {'live': [0.0, 0.0, 0.0], 'stored': [0.0, 0.0, 1.0]}
        >>> {name: weight.tolist() for name, weight in own.items()}
        {'live': [1.0, 0.5, 0.0], 'stored': [0.0, 0.0, 0.0]}
    """

    share: float
    scorers: frozenset[str]
    seed: int

    def split(self, weights: Mapping[str, Floats], step: int) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """Teacher -> (B,) trust, for the given answers and for the own ones; each sample has one of them."""
        able = np.logical_or.reduce([weight > 0 for name, weight in weights.items() if name in self.scorers])
        size = len(next(iter(weights.values())))
        own = np.broadcast_to(able, size) & (np.random.default_rng([self.seed, 9, step]).random(size) < self.share)
        none = np.float32(0)
        given = {name: np.where(own, none, weight) for name, weight in weights.items()}
        scored = {name: np.where(own & (name in self.scorers), weight, none) for name, weight in weights.items()}
        return given, scored
