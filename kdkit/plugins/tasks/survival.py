"""Survival of patients from frozen image features: Cox regression by scikit-survival."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import DomainScore, ModelFeatures, Sample
from kdkit.core.evaluation.metrics import LEVEL, RESAMPLES, SEED
from kdkit.core.evaluation.sampling import of_each_domain, require_separate_groups
from kdkit.core.evaluation.scoring import Bootstrap, Predicted, Subgroups, score_domain
from kdkit.plugins.tasks.bags import Bags, features_of
from kdkit.plugins.tasks.cox import Survived, concordance, dynamic_auc, fit_chosen, kaplan_meier, read_survived

Array = np.ndarray[Any, Any]
STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)
QUARTILES = (0.25, 0.5, 0.75)


class Survival:
    """C-index and time-dependent AUC of a Cox model, per domain, and Kaplan-Meier curves of two risk groups.

    A patient is the mean of his or her images' unit features; samples of one ``group`` are one patient. The model is
    fitted on the training split, on the leading principal components of its patients. Its ridge penalty has the best
    C-index on the calibration split.

    Args:
        training: training and calibration samples with a time and an event.
        time, event: names of metadata: a number, and 1 (or true) for an observed event or 0 where it was censored.
        components: number of principal components; 0 keeps all, which is slow for wide features.
        strengths: penalties to choose from (``alpha`` of scikit-survival).
        resamples, seed, level: of the bootstrap, which draws patients.
        subgroups: column -> sample id -> value, for scores of subgroups.
    """

    def __init__(
        self,
        *,
        training: Sequence[Sample],
        time: str = "time",
        event: str = "event",
        components: int = 64,
        strengths: Sequence[float] = STRENGTHS,
        resamples: int = RESAMPLES,
        seed: int = SEED,
        level: float = LEVEL,
        subgroups: Subgroups | None = None,
    ) -> None:
        require_library()
        self.training, self.time, self.event = training, time, event
        self.components, self.strengths = components, tuple(strengths)
        self.how = Bootstrap(resamples, seed, level, subgroups or {})

    def evaluate(self, model: ModelFeatures, samples: Sequence[Sample]) -> Sequence[DomainScore]:
        """One score per domain with observed events among its training and its scored patients.

        Raises:
            KdkitError: a time that is negative or no number, an event that is neither 0 nor 1, a patient with two
                times, a patient in two splits.
        """
        able = [(domain, found) for domain, found in of_each_domain(samples) if not self.why_skipped(found)]
        return [self._score(model, domain, found) for domain, found in able]

    def why_skipped(self, samples: Sequence[Sample]) -> str:
        """Why samples of one domain cannot be scored."""
        train = self._split(samples[0].domain, "train")
        for what, part in (("training", train), ("scored", samples)):
            if not part:
                return f"it has no {what} sample with a time and an event"
            if not self._survived(Bags.of(part)).event.any():
                return f"no event is observed among its {what} patients"
        if len(Bags.of(train)) < 2:
            return "it has one training patient: a model needs two"
        return ""

    def _split(self, domain: str, split: str) -> list[Sample]:
        return [sample for sample in self.training if sample.domain == domain and sample.split == split]

    def _survived(self, bags: Bags) -> Survived:
        return read_survived(bags, self.time, self.event)

    def _score(self, model: ModelFeatures, domain: str, scored: Sequence[Sample]) -> DomainScore:
        train, validation = (self._split(domain, split) for split in ("train", "calibration"))
        held_out = [sample for sample in scored if sample.split != "train"]
        require_separate_groups(train, [*validation, *held_out])
        require_separate_groups(validation, [sample for sample in held_out if sample.split == "test"])
        bags = [Bags.of(part) for part in (train, validation, scored)]
        features = features_of(model, train, validation, scored)
        rows = [bag.mean(found) for bag, found in zip(bags, features, strict=True) if len(bag)]
        known, truth = self._survived(bags[0]), self._survived(bags[2])
        held = (rows[1], self._survived(bags[1])) if validation else None
        fitted = fit_chosen(rows[0], known, held, self.strengths, self.components)
        risk = fitted.risk(rows[-1])
        metrics = {"c-index": concordance(truth, risk)}
        horizons = np.quantile(truth.time[truth.event], QUARTILES)
        for share, horizon in zip(QUARTILES, horizons, strict=True):
            metrics[f"auc at {100 * share:g} % of events"] = dynamic_auc(known, truth, risk, float(horizon))
        strata = truth.event.astype(np.int64)
        high = risk > np.median(fitted.risk(rows[0]))
        return score_domain(
            domain,
            Predicted(bags[2].firsts, strata, {}, metrics),
            self.how,
            notes=self._notes(bags, truth, horizons, fitted.setting, validated=held is not None),
            curves=kaplan_meier(truth, {"low risk": ~high, "high risk": high}, self.how.level),
        )

    def _notes(
        self, bags: Sequence[Bags], truth: Survived, horizons: Array, setting: float, *, validated: bool
    ) -> list[str]:
        times = ", ".join(f"{horizon:g}" for horizon in horizons)
        notes = [
            f"{len(bags[2])} patients with {int(truth.event.sum())} events; the AUC is at the times {times}; "
            "risk groups are divided at the median of the training patients"
        ]
        if not validated:
            notes.append(f"no calibration sample: the penalty is not chosen but fixed at {setting:g}")
        return notes


def require_library() -> None:
    """Raises: KdkitError when scikit-survival is not installed."""
    try:
        import sksurv  # noqa: F401
    except ImportError as error:
        raise KdkitError(
            "KD-EVAL-235",
            "the task 'survival' needs scikit-survival",
            why=str(error),
            fix="pip install 'kdkit[survival]'",
            code=ExitCode.MISSING,
        ) from None
