"""The built-in trust policies.

A policy maps a table of T teachers and M domains to weights (T, M) in [0, 1]. Notation, per domain: ``a_t`` accuracy of
teacher t, ``l_t`` its lower confidence bound, ``c`` accuracy of guessing, ``w_t`` weight. NaN gives 0. All are
equivariant to the order of teachers: equal scores get equal weights.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import CAPTIONS, TrustTable

Array = np.ndarray[Any, Any]


class Threshold:
    """``w_t = 1 if s_t >= value and s_t > c else 0``: the gate of MMKD-CLIP, for teachers above chance.

    Args:
        value: in [0, 1].
        on: ``s`` is the ``estimate`` or the ``lower`` confidence bound.
        fallback: in a domain without a passing teacher, ``best`` admits the highest ``s`` if its accuracy is above
            guessing; ``none`` admits no teacher.

    Example:
        >>> column = np.array([[0.95], [0.6]])
        >>> table = TrustTable(("a", "b"), ("ct",), column, column, column, np.array([100]), np.array([0.5]))
        >>> Threshold(value=0.9)(table).tolist()
        [[1.0], [0.0]]
    """

    def __init__(self, *, value: float = 0.90, on: str = "estimate", fallback: str = "none") -> None:
        _require("threshold", 0 <= value <= 1, "value", value, "a number from 0 to 1")
        _require("threshold", on in ("estimate", "lower"), "on", on, "'estimate' or 'lower'")
        _require("threshold", fallback in ("none", "best"), "fallback", fallback, "'none' or 'best'")
        self.value, self.on, self.fallback = value, on, fallback

    def __call__(self, table: TrustTable) -> Array:
        scores = table.accuracy if self.on == "estimate" else table.lower
        # Accuracies are fractions such as 27/30, so 0.9 must pass, and chance itself must not, despite rounding.
        weights = _at_least(scores, self.value - 1e-12) * (scores > table.chance + 1e-12)
        if self.fallback == "best":
            able = np.where(_beats_guessing(table), scores, np.nan)
            weights = np.where(weights.any(axis=0), weights, _among_best(able, 1))
        return weights


class TopK:
    """``w_t = 1`` for the k highest ``a_t`` that beat guessing (``l_t > c``); a tie for the k-th place admits
    all tied teachers.

    Args:
        k: at least 1.
    """

    def __init__(self, *, k: int = 1) -> None:
        _require("top-k", isinstance(k, int) and k >= 1, "k", k, "a whole number of at least 1")
        self.k = k

    def __call__(self, table: TrustTable) -> Array:
        return _among_best(np.where(_beats_guessing(table), table.accuracy, np.nan), self.k)


class Soft:
    """``w_t = exp(-sharpness (s* - s_t))`` with the skill ``s_t = (a_t - c) / (1 - c)`` and ``s* = max s_t``.

    The skill is Cohen's kappa against guessing: 0 at chance, 1 when always right. The best teacher of a domain has
    weight 1 if it beats guessing; any other with ``s_t < floor`` has 0.

    Args:
        sharpness: at least 0; at 8, a skill .1 below the best has weight .45.
        floor: the least skill of teachers beside the best, in [0, 1].
    """

    def __init__(self, *, sharpness: float = 8.0, floor: float = 0.2) -> None:
        _require("soft", sharpness >= 0, "sharpness", sharpness, "a number of at least 0")
        _require("soft", 0 <= floor <= 1, "floor", floor, "a number from 0 to 1")
        self.sharpness, self.floor = sharpness, floor

    def __call__(self, table: TrustTable) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            skill = (table.accuracy - table.chance) / (1 - table.chance)
        skill = np.where(np.isfinite(skill) & _beats_guessing(table), skill, -np.inf)
        best = skill.max(axis=0, initial=-np.inf)
        admitted = np.isfinite(skill) & ((skill >= self.floor) | (skill == best))
        behind = np.where(admitted, np.where(np.isfinite(best), best, 0) - skill, 0.0)
        return np.where(admitted, np.exp(-self.sharpness * behind), 0.0)


class Evidence:
    """Teachers and captions weigh by their evidence, the log odds against guessing, relative to the better of them.

    ``e_s = logit(a_s) - logit(c)`` for a source with ``l_s > c``, else 0, with ``a_s`` shrunk towards ``c`` by one
    guess. If sources err independently, the vote with these weights is the most probable answer (Nitzan and Paroush
    1982; for c = 1/2 the weights of AdaBoost). With ``e* = max(max e_t, e_captions)`` the captions have the weight
    ``e_captions / e*``; the teachers share ``max e_t / e*`` in proportion to their weights by :class:`Soft`. Captions
    that could not be measured count as much as the best teacher, and have weight 1 where nothing beats guessing.

    Args:
        sharpness, floor: of :class:`Soft`.

    Example:
        >>> column = np.array([[0.9], [0.7]])
        >>> names = ("a", CAPTIONS), ("ct",)
        >>> table = TrustTable(*names, column, column - 0.1, column + 0.1, np.array([100]), np.array([0.5]))
        >>> Evidence()(table).round(2).tolist()
        [[1.0], [0.39]]
    """

    def __init__(self, *, sharpness: float = 30.0, floor: float = 0.5) -> None:
        self._soft = Soft(sharpness=sharpness, floor=floor)

    def __call__(self, table: TrustTable) -> Array:
        captions = np.array([name == CAPTIONS for name in table.teachers], dtype=bool)
        evidence, soft = _evidence(table), self._soft(_without(table, captions))
        teachers = evidence[~captions].max(axis=0, initial=0.0)
        own = np.where(np.isnan(table.accuracy[captions]), teachers, evidence[captions]).sum(axis=0)
        best, shared = np.maximum(teachers, own), np.sort(soft, axis=0).sum(axis=0)  # sorted: for any order the same
        weights = soft / np.where(shared > 0, shared, 1) * teachers / np.where(best > 0, best, 1)
        weights[captions] = np.where(best > 0, own / np.where(best > 0, best, 1), 1.0)
        return np.asarray(weights)


class All:
    """``w_t = 1`` wherever ``a_t`` was measured.

    Args:
        unmeasured: also where it was not measured, for data without labels, at your own risk.
    """

    def __init__(self, *, unmeasured: bool = False) -> None:
        _require("all", isinstance(unmeasured, bool), "unmeasured", unmeasured, "true or false")
        self.unmeasured = unmeasured

    def __call__(self, table: TrustTable) -> Array:
        return np.where(np.isnan(table.accuracy) & (not self.unmeasured), 0.0, 1.0)


def _evidence(table: TrustTable) -> Array:
    """(T, M) log odds against guessing; 0 where guessing is not beaten."""
    with np.errstate(divide="ignore", invalid="ignore"):
        chance = np.clip(table.chance, 1e-3, 1 - 1e-3)
        accuracy = (table.accuracy * table.count + 1) / (table.count + 1 / chance)
        odds = np.log(accuracy / (1 - accuracy)) - np.log(chance / (1 - chance))
    return np.where(_beats_guessing(table), np.maximum(odds, 0), 0.0)


def _without(table: TrustTable, rows: Array) -> TrustTable:
    """The table with ``rows`` (T,) as if they were not measured."""
    hidden = [np.where(rows[:, None], np.nan, x) for x in (table.accuracy, table.lower, table.upper)]
    return replace(table, accuracy=hidden[0], lower=hidden[1], upper=hidden[2])


def _beats_guessing(table: TrustTable) -> Array:
    """(T, M): significantly better than guessing, ``lower > c``; a teacher at chance level teaches noise."""
    return np.asarray(table.lower > table.chance)


def _at_least(scores: Array, value: Array | float) -> Array:
    """1 where ``scores`` (T, M) reach ``value`` (scalar or (M,)), else 0, also for NaN."""
    return np.where(np.nan_to_num(scores, nan=-np.inf) >= value, 1.0, 0.0)


def _among_best(scores: Array, k: int) -> Array:
    """1 for the k highest of each column and ties with the k-th; 0 for NaN."""
    if not len(scores):
        return np.zeros_like(scores)
    ranked = np.sort(np.nan_to_num(scores, nan=-np.inf), axis=0)
    kth = ranked[-min(k, len(ranked))]
    return np.where(np.isnan(scores), 0.0, _at_least(scores, kth))


def _require(policy: str, holds: bool, option: str, value: object, wanted: str) -> None:
    if not holds:
        raise KdkitError("KD-POL-001", f"policy '{policy}': {option} is {value!r}", fix=f"set {option} to {wanted}")
