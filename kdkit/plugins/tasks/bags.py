"""Patients as bags of images: what is known of a patient, and pooled features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdkit.core.contracts import ModelFeatures, Sample
from kdkit.core.evaluation.sampling import sample_groups
from kdkit.core.evaluation.zero_shot import unit_rows

Array = np.ndarray[Any, Any]
Integers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Bags:
    """B bags of N images; a sample without a group is a bag of its own.

    Attributes:
        samples: N, of one domain.
        bag_of: (N,) the bag of each.
        firsts: the first sample of each bag, which stands for it.
    """

    samples: Sequence[Sample]
    bag_of: Integers
    firsts: tuple[Sample, ...]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Bags:
        """The bags in the order in which they first occur."""
        bag_of = sample_groups(samples)
        firsts = np.unique(bag_of, return_index=True)[1]
        return cls(samples, bag_of, tuple(samples[row] for row in firsts.tolist()))

    def __len__(self) -> int:
        return len(self.firsts)

    def mean(self, features: Array) -> Array:
        """(B, D) unit means of unit features (N, D)."""
        sums = np.zeros((len(self), features.shape[1]), dtype=np.float64)
        np.add.at(sums, self.bag_of, features)
        return unit_rows(sums, what="means of a patient's features", names=[sample.id for sample in self.firsts])


def features_of(model: ModelFeatures, *parts: Sequence[Sample]) -> list[Array]:
    """Image features of several lists of samples, read in one call."""
    unique = list({sample.id: sample for part in parts for sample in part}.values())
    row = {sample.id: number for number, sample in enumerate(unique)}
    features = model.image(unique)
    return [features[[row[sample.id] for sample in part]] for part in parts]
