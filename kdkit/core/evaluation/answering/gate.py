"""Whether choosing among several answers helped on calibration samples, per domain (task and modality).

Rules are compared by cross-fitting (Chernozhukov et al., Econometrics Journal 21, 2018): groups of samples are split
into folds; each fold is answered by the rule that is best on the other folds, the plain answer being one of the rules.
So the choice of the rule does not flatter it. The gate opens if the paired bootstrap interval of that change over the
plain answer, with whole groups drawn, lies above 0. The rule that is best on all samples is then used.

That rule is at least as good on the calibration samples as the cross-fitted choice: with sums ``S_r`` over all samples
and ``s_r`` over a fold, the rule ``c`` of that fold has ``S_c - s_c >= S_b - s_b`` and ``S_c <= S_b`` for the best rule
``b``, hence ``s_c <= s_b``. An open gate therefore never lowers the calibration score, and a closed one never changes
it.

Shapes: N samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdkit.core.base.json_record import JsonRecord
from kdkit.core.evaluation.answering.names import PLAIN
from kdkit.core.evaluation.metrics import paired_difference

Array = np.ndarray[Any, Any]
FOLDS = 5
SEED = 17
LEAST_GROUPS = 20
"""Fewer show too little: their bootstrap intervals are too narrow."""


@dataclass(frozen=True)
class DomainGate(JsonRecord):
    """The decision for one domain.

    Attributes:
        rule: that is used: ``plain`` unless another one helped.
        best: the best rule on all calibration samples, used or not.
        before: accuracy of plain answers; ``after``: of the cross-fitted choice; both in [0, 1].
        points: ``100 (after - before)``; ``low`` and ``high`` bound it at 95 %.
        count: calibration samples; ``groups``: of them (patients, else images).
        scores: rule -> its accuracy on all calibration samples, in [0, 1].
        known: digest of the calibration samples.
    """

    domain: str
    rule: str
    best: str
    before: float
    after: float
    points: float
    low: float
    high: float
    count: int
    groups: int
    scores: Mapping[str, float]
    known: str = ""

    @property
    def why(self) -> str:
        """The reason for the decision, in words."""
        if not self.count:
            return "not measured: no calibration samples"
        if self.groups < LEAST_GROUPS:
            return f"too few images or patients: {self.groups} of {LEAST_GROUPS}"
        if self.rule != PLAIN:
            return "helps"
        return "harms" if self.high < 0 else "not shown to help"


def judge_domain(
    domain: str, outcomes: Mapping[str, Array], groups: Array, *, known: str = "", level: float = 0.95
) -> DomainGate:
    """Compare rules with the plain answer.

    Args:
        outcomes: rule -> (N,) in [0, 1]; :data:`PLAIN` is the first, and of equal rules the first one counts.
        groups: (N,) of the samples, as numbers.
        known: digest of the samples, for the record.

    Example:
        >>> right, wrong = np.ones(40), np.zeros(40)
        >>> judge_domain("vg/ct", {"plain": wrong, "agreement": right}, np.arange(40)).rule
        'agreement'
        >>> judge_domain("vg/ct", {"plain": right, "agreement": wrong}, np.arange(40)).rule
        'plain'
    """
    names = list(outcomes)
    table = np.stack([np.asarray(outcomes[name], dtype=np.float64) for name in names])
    groups = np.unique(groups, return_inverse=True)[1]
    number = int(groups.max()) + 1
    chosen = cross_fit(table, groups)
    after = np.take_along_axis(table, chosen[None], axis=0)[0]
    points, low, high = (100 * v for v in paired_difference(table[0], after, groups=groups, level=level))
    best = names[int(np.argmax(_means(table)))]
    return DomainGate(
        domain=domain,
        rule=best if low > 0 and number >= LEAST_GROUPS else PLAIN,
        best=best,
        before=float(table[0].mean()),
        after=float(after.mean()),
        points=points,
        low=low,
        high=high,
        count=table.shape[1],
        groups=number,
        scores={name: float(mean) for name, mean in zip(names, table.mean(axis=1), strict=True)},
        known=known,
    )


def cross_fit(table: Array, groups: Array) -> Array:
    """(N,) the row of ``table`` (rules, N) that is best on the other folds; the first of equals.

    Groups are dealt to :data:`FOLDS` folds, or one fold each if they are fewer; one group gets row 0.
    """
    number = np.unique(groups, return_inverse=True)[1]
    dealt = np.random.default_rng(SEED).permutation(int(number.max()) + 1) % FOLDS
    folds, chosen = dealt[number], np.zeros(table.shape[1], dtype=np.int64)
    for fold in np.unique(folds):
        others = folds != fold
        if others.any():
            chosen[~others] = int(np.argmax(_means(table[:, others])))
    return chosen


def _means(table: Array) -> Array:
    """Of each row, without the last digits: equal rules must tie."""
    return np.asarray(table.mean(axis=1).round(12))


def unmeasured(domain: str) -> DomainGate:
    """A domain without calibration samples: its plain answers are used."""
    return DomainGate(domain, PLAIN, PLAIN, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, {})


def gate_rows(domains: Sequence[DomainGate]) -> list[tuple[object, ...]]:
    """Rows of the table in reports: see :data:`HEADERS`."""
    return [
        (
            one.domain,
            one.rule,
            f"{100 * one.before:.1f}" if one.count else "",
            f"{100 * one.after:.1f}" if one.count else "",
            f"{one.points:+.1f} ({one.low:+.1f} to {one.high:+.1f})" if one.count else "",
            one.count,
            one.why,
        )
        for one in domains
    ]


HEADERS = ("domain", "used", "plain, %", "chosen, %", "change", "samples", "why")
ALIGN = "llrrrrl"
