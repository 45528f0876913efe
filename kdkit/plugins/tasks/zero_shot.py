"""Zero-shot classification with prompt ensembles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdkit.core.contracts import DomainScore, ModelFeatures, Sample
from kdkit.core.evaluation.metrics import LEVEL, RESAMPLES, SEED, accuracy, bootstrap, interval, macro_auc
from kdkit.core.evaluation.sampling import sample_groups
from kdkit.core.evaluation.zero_shot import LOGIT_SCALE, Prompts, class_embeddings, class_log_odds

FEW = 30


class ZeroShot:
    """Accuracy and macro one-vs-rest AUC per domain, with stratified bootstrap intervals over samples, or groups
    (patients) where they are known.

    The candidates of a domain are all classes in ``prompts``, present in the samples or not.

    Args:
        prompts: domain -> class -> prompts.
        logit_scale: softmax scale; AUC over more than two classes depends on it, so reports record it.
        resamples, seed, level: of the bootstrap.
    """

    def __init__(
        self,
        *,
        prompts: Prompts,
        logit_scale: float = LOGIT_SCALE,
        resamples: int = RESAMPLES,
        seed: int = SEED,
        level: float = LEVEL,
    ) -> None:
        self.prompts = prompts
        self.logit_scale, self.resamples, self.seed, self.level = logit_scale, resamples, seed, level

    def evaluate(self, model: ModelFeatures, samples: Sequence[Sample]) -> Sequence[DomainScore]:
        """One score per domain with labeled samples of at least two classes, in the order of ``prompts``."""
        by_domain: dict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            if sample.label in self.prompts.get(sample.domain, {}):
                by_domain[sample.domain].append(sample)
        usable = [d for d in self.prompts if len({sample.label for sample in by_domain[d]}) > 1]
        return [self._score(model, domain, by_domain[domain]) for domain in usable]

    def _score(self, model: ModelFeatures, domain: str, samples: Sequence[Sample]) -> DomainScore:
        prompts = self.prompts[domain]
        number = {label: index for index, label in enumerate(prompts)}
        labels = np.array([number[str(sample.label)] for sample in samples], dtype=np.int64)
        log_odds = class_log_odds(model.image(samples), class_embeddings(prompts, model.text), self.logit_scale)
        correct = (log_odds.argmax(axis=1) == labels).astype(np.float64)

        def both(counts: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any]:
            return np.stack([accuracy(correct, counts), macro_auc(labels, log_odds, counts)], axis=1)

        drawn = bootstrap(labels, both, self.resamples, self.seed, sample_groups(samples))
        values = both(None)[0]
        return DomainScore(
            domain=domain,
            count=len(samples),
            metrics={"accuracy": float(values[0]), "auc": float(values[1])},
            intervals={
                "accuracy": interval(drawn[:, 0], self.level),
                "auc": interval(drawn[:, 1], self.level),
            },
            level=self.level,
            ids=tuple(sample.id for sample in samples),
            outcomes={"accuracy": correct},
            notes=_notes(prompts, {str(sample.label) for sample in samples}, len(samples)),
        )


def _notes(prompts: Mapping[str, Any], present: set[str], count: int) -> tuple[str, ...]:
    notes = []
    if absent := [label for label in prompts if label not in present]:
        notes.append(f"no sample of {', '.join(absent)}: candidates for accuracy, not in AUC")
    if count < FEW:
        notes.append(f"only {count} samples: the intervals are rough")
    return tuple(notes)
