"""Zero-shot classification of samples that may have several classes, or none: findings of a radiograph, for example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdkit.core.contracts import FINDINGS, DomainScore, ModelFeatures, Sample
from kdkit.core.evaluation.metrics import LEVEL, RESAMPLES, SEED, average_precision, class_auc
from kdkit.core.evaluation.sampling import of_each_domain
from kdkit.core.evaluation.scoring import Bootstrap, Predicted, RowMetric, Subgroups, score_domain
from kdkit.core.evaluation.zero_shot import class_embeddings

Array = np.ndarray[Any, Any]
FindingPrompts = Mapping[str, Mapping[str, tuple[Sequence[str], Sequence[str]]]]
"""Domain -> finding -> its positive and negative prompts."""


class MultiLabel:
    """AUC and average precision of every finding, and their means, per domain.

    The score of a finding is the cosine to its positive prompts minus that to its negative ones, each the mean of the
    prompts' unit embeddings; without negative prompts, the first alone. AUC and average precision are of ranks, so no
    softmax scale enters.

    Args:
        findings: domain -> finding -> positive and negative prompts.
        resamples, seed, level: of the bootstrap, which draws samples, or groups (patients) where they are known.
        subgroups: column -> sample id -> value, for scores of subgroups.
    """

    def __init__(
        self,
        *,
        findings: FindingPrompts,
        resamples: int = RESAMPLES,
        seed: int = SEED,
        level: float = LEVEL,
        subgroups: Subgroups | None = None,
    ) -> None:
        self.findings, self.how = findings, Bootstrap(resamples, seed, level, subgroups or {})

    def evaluate(self, model: ModelFeatures, samples: Sequence[Sample]) -> Sequence[DomainScore]:
        """One score per domain with a finding that some samples have and others have not."""
        domains = of_each_domain(sample for sample in samples if FINDINGS in sample.extra)
        return [self._score(model, domain, found) for domain, found in domains if not self._why(domain, found)]

    def why_skipped(self, samples: Sequence[Sample]) -> str:
        """Why samples of one domain cannot be scored."""
        found = [sample for sample in samples if FINDINGS in sample.extra]
        return self._why(found[0].domain, found) if found else "none of its samples has findings"

    def _why(self, domain: str, samples: Sequence[Sample]) -> str:
        truth = self._truth(domain, samples)
        return "" if _judged(truth).any() else "no finding is present in some of its samples and absent in others"

    def _truth(self, domain: str, samples: Sequence[Sample]) -> Array:
        """(N, F) bool."""
        names = list(self.findings.get(domain, {}))
        return np.array([[name in sample.extra[FINDINGS] for name in names] for sample in samples], dtype=bool)

    def _score(self, model: ModelFeatures, domain: str, samples: Sequence[Sample]) -> DomainScore:
        prompts, truth = self.findings[domain], self._truth(domain, samples)
        image = model.image(samples).astype(np.float64)
        positive, negative = (
            class_embeddings({name: sides[side] for name, sides in prompts.items() if sides[side]}, model.text)
            if any(sides[side] for sides in prompts.values())
            else np.zeros((0, image.shape[1]))
            for side in (0, 1)
        )
        scores = image @ positive.T
        scores[:, [bool(sides[1]) for sides in prompts.values()]] -= image @ negative.T
        judged, names = np.flatnonzero(_judged(truth)), list(prompts)
        auc = {names[f]: _auc(truth[:, f], scores[:, f]) for f in judged}
        precision = {names[f]: _precision(truth[:, f], scores[:, f]) for f in judged}
        metrics = {"auc": _mean(list(auc.values())), "mean average precision": _mean(list(precision.values()))}
        metrics |= {f"auc/{name}": metric for name, metric in auc.items()}
        metrics |= {f"average precision/{name}": metric for name, metric in precision.items()}
        left_out = [name for f, name in enumerate(names) if f not in judged]
        notes = [f"not judged, since all or none of its samples have it: {', '.join(left_out)}"] if left_out else []
        strata = np.zeros(len(samples), dtype=np.int64)
        return score_domain(domain, Predicted(samples, strata, {}, metrics), self.how, notes=notes)


def _judged(truth: Array) -> Array:
    """(F,) whether some samples have the finding and others have not."""
    return np.asarray(truth.any(axis=0) & ~truth.all(axis=0))


def _auc(truth: Array, scores: Array) -> RowMetric:
    both = np.stack([-scores, scores], axis=1)
    return lambda rows, counts: class_auc(truth[rows].astype(np.int64), both[rows], counts)[1]


def _precision(truth: Array, scores: Array) -> RowMetric:
    return lambda rows, counts: average_precision(truth[rows], scores[rows], counts)


def _mean(metrics: Sequence[RowMetric]) -> RowMetric:
    """Over the findings that are defined."""

    def values(rows: Array, counts: Array | None) -> Array:
        found = np.stack([metric(rows, counts) for metric in metrics])
        known = ~np.isnan(found)
        total = np.where(known, found, 0.0).sum(axis=0)
        return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)

    return values
