"""Zero-shot classification with prompt ensembles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdkit.core.contracts import DomainScore, ModelFeatures, PartialOutputs, Sample
from kdkit.core.evaluation.calibration import HeldOut, measure_calibration, require_coverage
from kdkit.core.evaluation.metrics import LEVEL, RESAMPLES, SEED, macro_auc
from kdkit.core.evaluation.scoring import Bootstrap, Predicted, Subgroups, confusion, score_domain
from kdkit.core.evaluation.zero_shot import (
    LOGIT_SCALE,
    Prompts,
    class_embeddings,
    class_log_odds,
    class_probabilities,
)

Array = np.ndarray[Any, Any]


class ZeroShot:
    """Accuracy and macro one-vs-rest AUC per domain, with stratified bootstrap intervals over samples, or groups
    (patients) where they are known.

    The candidates of a domain are all classes in ``prompts``, present in the samples or not.

    Args:
        prompts: domain -> class -> prompts.
        calibration: labeled calibration samples, for conformal sets.
        coverage: of conformal sets, such as 0.9; 0 makes none.
        logit_scale: softmax scale; AUC over more than two classes depends on it, so reports record it.
        resamples, seed, level: of the bootstrap.
        subgroups: column -> sample id -> value, for scores of subgroups.
    """

    def __init__(
        self,
        *,
        prompts: Prompts,
        calibration: Sequence[Sample] = (),
        logit_scale: float = LOGIT_SCALE,
        coverage: float = 0.0,
        resamples: int = RESAMPLES,
        seed: int = SEED,
        level: float = LEVEL,
        subgroups: Subgroups | None = None,
    ) -> None:
        require_coverage(coverage)
        self.prompts, self.calibration, self.coverage = prompts, calibration, coverage
        self.logit_scale, self.how = logit_scale, Bootstrap(resamples, seed, level, subgroups or {})

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
        classes = class_embeddings(prompts, model.text)
        image = model.image(samples)
        log_odds = class_log_odds(image, classes, self.logit_scale)
        chosen = log_odds.argmax(axis=1)
        predicted = Predicted(
            samples,
            labels,
            outcomes={"accuracy": (chosen == labels).astype(np.float64)},
            metrics={"auc": lambda rows, counts: macro_auc(labels[rows], log_odds[rows], counts)},
        )
        return score_domain(
            domain,
            predicted,
            self.how,
            notes=_notes(prompts, {str(sample.label) for sample in samples}),
            confusion=confusion(tuple(prompts), labels, chosen),
            calibration=measure_calibration(
                class_probabilities(image, classes, self.logit_scale),
                labels,
                samples,
                self.how,
                self._held_out(model, domain, classes, {sample.id for sample in samples}),
            ),
        )

    def _held_out(self, model: ModelFeatures, domain: str, classes: Array, scored: set[str]) -> HeldOut | None:
        """The calibration samples of the domain, if conformal sets are requested and they are not what is scored."""
        own = [s for s in self.calibration if s.domain == domain and s.label in self.prompts[domain]]
        if isinstance(model, PartialOutputs):
            own = list(model.covered(own))
        if not self.coverage or not own or scored & {sample.id for sample in own}:
            return None
        number = {label: index for index, label in enumerate(self.prompts[domain])}
        labels = np.array([number[str(sample.label)] for sample in own], dtype=np.int64)
        return HeldOut(class_probabilities(model.image(own), classes, self.logit_scale), labels, self.coverage)


def _notes(prompts: Mapping[str, Any], present: set[str]) -> tuple[str, ...]:
    absent = [label for label in prompts if label not in present]
    return (f"no sample of {', '.join(absent)}: candidates for accuracy, not in AUC",) if absent else ()
