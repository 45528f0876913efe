"""Cox regression by scikit-survival, and its measures under bootstrap counts.

Shapes: B patients, D features, R bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Curve, Sample, columns_of
from kdkit.core.evaluation.scoring import RowMetric
from kdkit.plugins.tasks.bags import Bags

Array = np.ndarray[Any, Any]
FIXED = 10.0
"""The penalty where nothing chooses it."""
TRUE, FALSE = ("1", "1.0", "true"), ("0", "0.0", "false")


@dataclass(frozen=True)
class Survived:
    """Follow-up of B patients: ``time`` (B,), and whether the ``event`` (B,) was observed then."""

    time: Array
    event: Array

    def structured(self) -> Array:
        """As scikit-survival takes it."""
        from sksurv.util import Surv

        return np.asarray(Surv.from_arrays(self.event, self.time))

    def rows(self, chosen: Array) -> Survived:
        return Survived(self.time[chosen], self.event[chosen])


def read_survived(bags: Bags, time: str, event: str) -> Survived:
    """Times and events of patients from their samples' metadata.

    Raises:
        KdkitError: see :class:`~kdkit.plugins.tasks.survival.Survival`.
    """
    times, events = np.zeros(len(bags)), np.zeros(len(bags), dtype=bool)
    found: dict[int, tuple[float, bool]] = {}
    for sample, bag in zip(bags.samples, bags.bag_of.tolist(), strict=True):
        own = _time(sample, time), _event(sample, event)
        if found.setdefault(bag, own) != own:
            first = bags.firsts[bag]
            raise KdkitError(
                "KD-EVAL-232",
                f"the patient of '{first.id}' has another {time} or {event} at '{sample.id}'",
                where=sample.origin,
                fix="give all samples of a patient (group) the same time and event",
                code=ExitCode.FOUND,
            )
        times[bag], events[bag] = own
    return Survived(times, events)


def _time(sample: Sample, column: str) -> float:
    text = columns_of(sample)[column]
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value) or value < 0:
        raise KdkitError(
            "KD-EVAL-233",
            f"the {column} of '{sample.id}' is {text}",
            where=sample.origin,
            fix="write the follow-up as a number of at least 0, such as months",
            code=ExitCode.FOUND,
        )
    return value


def _event(sample: Sample, column: str) -> bool:
    text = columns_of(sample)[column]
    if text.lower() not in (*TRUE, *FALSE):
        raise KdkitError(
            "KD-EVAL-234",
            f"the {column} of '{sample.id}' is {text}",
            where=sample.origin,
            fix="write 1 where the event was observed, and 0 where the patient was censored",
            code=ExitCode.FOUND,
        )
    return text.lower() in TRUE


@dataclass(frozen=True)
class Fitted:
    """A Cox model on principal components; ``setting`` is its penalty. Without a model, all risks are equal."""

    mean: Array
    axes: Array
    model: Any
    setting: float

    def risk(self, rows: Array) -> Array:
        """(B,) log relative hazard of features (B, D)."""
        if self.model is None:
            return np.zeros(len(rows))
        return np.asarray(self.model.predict((rows - self.mean) @ self.axes), dtype=np.float64)


def fit_chosen(
    rows: Array,
    known: Survived,
    held_out: tuple[Array, Survived] | None,
    strengths: Sequence[float],
    components: int,
) -> Fitted:
    """The model with the penalty of the best C-index on ``held_out``; of equals, the largest penalty.

    Components are scaled to a mean variance of 1, so that penalties mean the same for all features. Where all ``rows``
    are equal, there is no component and no model.
    """
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    rows = rows.astype(np.float64)
    mean = rows.mean(axis=0)
    _, lengths, axes = np.linalg.svd(rows - mean, full_matrices=False)
    number = min(components or len(lengths), int((lengths > 1e-9 * np.linalg.norm(rows)).sum()))
    if not number:
        return Fitted(mean, axes[:0].T, None, _fixed(strengths))
    scale = np.sqrt(np.mean(lengths[:number] ** 2) / len(rows))
    axes = axes[:number].T / scale

    def fit(setting: float) -> Fitted:
        model = CoxPHSurvivalAnalysis(alpha=setting, ties="efron")
        return Fitted(mean, axes, model.fit((rows - mean) @ axes, known.structured()), setting)

    if held_out is None or not comparable(held_out[1]).any():
        return fit(_fixed(strengths))
    best: tuple[float, Fitted] | None = None
    for setting in sorted(strengths, reverse=True):
        fitted = fit(setting)
        every = np.arange(len(held_out[0]))
        index = float(concordance(held_out[1], fitted.risk(held_out[0]))(every, None)[0])
        if best is None or index > best[0]:
            best = (index, fitted)
    assert best is not None
    return best[1]


def _fixed(strengths: Sequence[float]) -> float:
    return min(strengths, key=lambda setting: abs(np.log(setting / FIXED)))


def comparable(truth: Survived) -> Array:
    """(B, B) whether the first patient is known to have had the event before the second."""
    time, event = truth.time, truth.event
    earlier = time[:, None] < time[None]
    censored_then = (time[:, None] == time[None]) & ~event[None]
    pairs: Array = event[:, None] & (earlier | censored_then)
    return pairs


def concordance(truth: Survived, risk: Array) -> RowMetric:
    """Harrell's C-index: of all comparable pairs, how often the earlier event has the higher risk; ties count half
    (Harrell et al., JAMA 247, 1982)."""
    pairs = comparable(truth)
    won = np.where(pairs, (risk[:, None] > risk[None]) + 0.5 * (risk[:, None] == risk[None]), 0.0)
    return _pair_share(won, pairs.astype(np.float64))


def dynamic_auc(known: Survived, truth: Survived, risk: Array, horizon: float) -> RowMetric:
    """Cumulative/dynamic AUC: of pairs with an event until ``horizon`` and none yet, how often the first has the higher
    risk. Events are weighed by the inverse probability of not being censored, by the Kaplan-Meier estimate of the
    training patients ``known`` (Uno et al., JASA 102, 2007; Hung and Chiang, Canadian Journal of Statistics 38, 2010).
    """
    from sksurv.nonparametric import CensoringDistributionEstimator

    weight = np.zeros(len(risk))
    inside = truth.event & (truth.time <= min(horizon, known.time.max()))
    estimator = CensoringDistributionEstimator().fit(known.structured())
    if inside.any():
        free = estimator.predict_proba(truth.time[inside])
        weight[inside] = np.divide(1.0, free, out=np.zeros(len(free)), where=free > 0)
    pairs = weight[:, None] * (truth.time > horizon)[None]
    won = pairs * ((risk[:, None] > risk[None]) + 0.5 * (risk[:, None] == risk[None]))
    return _pair_share(won, pairs)


def _pair_share(won: Array, pairs: Array) -> RowMetric:
    """Share of the weights of pairs (B, B) that are won, under counts of their patients; NaN without a pair."""

    def values(rows: Array, counts: Array | None) -> Array:
        drawn = np.ones((len(rows), 1)) if counts is None else counts.astype(np.float64)
        part = np.ix_(rows, rows)
        hits, total = ((drawn * (matrix[part] @ drawn)).sum(axis=0) for matrix in (won, pairs))
        return np.asarray(np.divide(hits, total, out=np.full(len(total), np.nan), where=total > 0))

    return values


def kaplan_meier(truth: Survived, groups: Mapping[str, Array], level: float) -> tuple[Curve, ...]:
    """Survival of each group of patients with its pointwise log-log interval, by scikit-survival."""
    from sksurv.nonparametric import kaplan_meier_estimator

    found = []
    for name, chosen in groups.items():
        if not chosen.any():
            continue
        own = truth.rows(chosen)
        if own.event.any():
            x, y, bounds = kaplan_meier_estimator(own.event, own.time, conf_level=level, conf_type="log-log")
        else:
            x = np.unique(own.time)
            y, bounds = np.ones(len(x)), np.ones((2, len(x)))
        bounds = np.where(np.isnan(bounds), y, bounds)
        x, y, low, high = (tuple(map(float, part)) for part in (x, y, *bounds))
        found.append(Curve(name, x, y, low, high, int(chosen.sum())))
    return tuple(found)
