"""Weights that a policy gives to a trust table, and the gaps that they leave."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import CAPTIONS, Reporter, TrustBasis, TrustPolicy, TrustTable

Array = np.ndarray[Any, Any]
SAMPLES = 65_536
"""Samples that a policy weighs at a time."""
_UNMEASURED: Mapping[TrustBasis, str] = {
    "label": "label or answer some calibration samples",
    "caption": "it needs captions of calibration samples, and a teacher with text features",
    "list": "no teacher has a list with its samples",
}


@dataclass(frozen=True)
class DomainWithoutTeacher:
    """A domain that no teacher may teach.

    Attributes:
        best: the teacher with the highest accuracy; None without a measurement.
        accuracy, lower, upper: of the best teacher; ``chance``: accuracy of guessing.
        limited: the registry's ``domains`` exclude the best teacher.
        by: what trust was measured by.
    """

    domain: str
    best: str | None
    accuracy: float
    lower: float
    upper: float
    chance: float
    limited: bool = False
    by: TrustBasis = "label"

    @property
    def beats_guessing(self) -> bool:
        """Whether the best teacher is significantly better than guessing."""
        return self.lower > self.chance

    @property
    def message(self) -> str:
        """The problem and its remedy."""
        return f"domain '{self.domain}': no teacher may teach it; {self.reason}"

    @property
    def reason(self) -> str:
        """The cause and its remedy."""
        if self.best is None:
            return f"trust is not measured there: {_UNMEASURED[self.by]}"
        bounds = f"{self.lower:.2f}-{self.upper:.2f}, chance {self.chance:.2f}"
        score = f"{self.best} with {self.accuracy:.2f} ({bounds})"
        if not self.beats_guessing:
            return (
                f"the best is {score}, not significantly better than guessing: "
                "add a teacher of this domain, or more calibration samples"
            )
        if self.limited:
            return f"{score} is limited to other domains in registry.yaml: change its 'domains', or add a teacher"
        value, lower = self.admitting_thresholds
        return (
            f"the best is {score}. Policy 'threshold' with value {value:g} would admit it "
            f"({lower:g} on the lower bound), as would fallback: best, or policy 'top-k'"
        )

    @property
    def admitting_thresholds(self) -> tuple[float, float]:
        """Values of the policy ``threshold``, on the estimate and on the lower bound, that admit the best teacher."""
        return math.floor(self.accuracy * 100) / 100, math.floor(self.lower * 100) / 100  # rounded down


@dataclass(frozen=True)
class TeacherWithoutDomain:
    """A teacher that may teach no domain; ``limited``: the registry has ``domains`` for it."""

    teacher: str
    best_domain: str | None
    accuracy: float
    limited: bool = False

    @property
    def message(self) -> str:
        """The problem and its remedy."""
        head = f"teacher '{self.teacher}' passes the trust policy in no domain and teaches nothing"
        if self.best_domain is None:
            return f"{head}: it is not measured in any{' that the registry allows' if self.limited else ''}"
        return f"{head}; its best is {self.accuracy:.2f} in '{self.best_domain}'"


@dataclass(frozen=True)
class TrustWeights:
    """What each source of knowledge is worth in each of M domains; 0: it does not teach there.

    Attributes:
        teachers: (T, M) float64 in [0, 1], in the order of the table's teachers.
        captions: (M,) float64 in [0, 1]; 1 from a policy that does not weigh captions.
        samples: (T, N) float32 in [0, 1], where the policy weighs each sample; ``teachers`` are then their means.
    """

    teachers: Array
    captions: Array
    samples: Array | None = None


def policy_weights(
    table: TrustTable,
    policy: TrustPolicy,
    *,
    limits: Mapping[str, Sequence[str]] | None = None,
    weighs_captions: bool = False,
) -> TrustWeights:
    """The weights that ``policy`` gives to the teachers of ``table``, and to captions if it weighs them.

    A teacher of images alone or of texts alone is weighed beside the dual encoders and captions, but lowers the weight
    of no other: it cannot replace what they teach. The policy therefore also gets tables without such teachers.

    Args:
        limits: teacher -> the only domains that it may teach (the registry's ``domains``). The policy gets NaN
            elsewhere.
        weighs_captions: as its spec says; otherwise it does not get the row of the captions.

    Raises:
        KdkitError: a policy that returns anything but weights in [0, 1] of that shape.
    """
    if not weighs_captions:
        table = without_captions(table)
    allowed = _allowed(table, limits)
    limited = replace(
        table,
        accuracy=np.where(allowed, table.accuracy, np.nan),
        lower=np.where(allowed, table.lower, np.nan),
        upper=np.where(allowed, table.upper, np.nan),
    )
    captions = np.array([name == CAPTIONS for name in table.teachers], bool)
    weights = np.where(allowed, _weigh(policy, limited), 0.0)
    return TrustWeights(weights[~captions], weights[captions][0] if captions.any() else np.ones(len(table.domains)))


def _weigh(policy: TrustPolicy, table: TrustTable) -> Array:
    """(T, M): teachers of one signal are weighed beside those of both, which they do not influence."""
    signals = np.array([table.probed.get(name, "") for name in table.teachers])
    weights = np.zeros(table.accuracy.shape)
    for signal in np.unique(signals):
        seen = np.flatnonzero((signals == signal) | (signals == ""))
        given = _ask(policy, _rows(table, seen.tolist()))
        weights[signals == signal] = given[signals[seen] == signal]
    return weights


def _ask(policy: TrustPolicy, table: TrustTable) -> Array:
    """(T, M) float64, a copy. Raises: KdkitError for anything but weights in [0, 1] of that shape."""
    weights = np.array(policy(table), dtype=np.float64)
    problem = ""
    if weights.shape != table.accuracy.shape:
        problem = f"weights of shape {weights.shape} for a table of {table.accuracy.shape}"
    elif not ((weights >= 0) & (weights <= 1)).all():
        problem = "weights outside [0, 1] or NaN"
    if problem:
        raise KdkitError(
            "KD-TRUST-003",
            f"the trust policy returned {problem}",
            where=str(getattr(policy, "name", type(policy).__name__)),
            fix="correct the plugin that provides the policy",
            code=ExitCode.PLUGIN,
        )
    return weights


@dataclass(frozen=True)
class SampleScores:
    """Trust of T teachers in each of N samples.

    Attributes:
        values: (T, N) float32 in [0, 1], NaN without a score; rows as the table's teachers, without captions.
        domain: (N,) position of the sample's domain in the table.
    """

    values: Array
    domain: Array

    def weights(
        self, table: TrustTable, policy: TrustPolicy, limits: Mapping[str, Sequence[str]] | None = None
    ) -> Array:
        """(T, N) float32: the policy on a table with a column per sample, of the teachers that beat guessing in its
        domain. Among others, one would be right by luck on some samples.

        Args:
            table: of the domains, without captions; limits: see :func:`policy_weights`.
        """
        able, weights = _allowed(table, limits) & (table.lower > table.chance), np.zeros(self.values.shape, np.float32)
        for start in range(0, self.values.shape[1], SAMPLES):
            part = slice(start, start + SAMPLES)
            domain = self.domain[part]
            # Stored as float32, a score of 0.9 must pass a gate of 0.9.
            scores = np.where(able[:, domain], self.values[:, part].astype(np.float64).round(6), np.nan)
            columns = replace(
                table,
                domains=tuple(table.domains[place] for place in domain),
                accuracy=scores,
                lower=scores,
                upper=scores,
                count=np.ones(len(domain), dtype=np.int64),
                chance=table.chance[domain],
            )
            weights[:, part] = np.where(_allowed(table, limits)[:, domain], _weigh(policy, columns), 0)
        return weights

    def means(self, weights: Array, domains: int) -> Array:
        """(T, M) mean of ``weights`` (T, N) over the samples of a domain that have a score; 0 without any."""
        known = ~np.isnan(self.values)
        counts, totals = np.zeros((2, len(weights), domains))
        for row in range(len(weights)):
            counts[row] = np.bincount(self.domain[known[row]], minlength=domains)
            totals[row] = np.bincount(self.domain, weights[row] * known[row], minlength=domains)
        return totals / np.maximum(counts, 1)


@dataclass(frozen=True)
class TrustGate:
    """A measured table with the policy that reads it.

    Attributes:
        table: of the teachers, with the captions as its last row where they were measured.
        policy, limits, weighs_captions: see :func:`policy_weights`.
        samples: scores per sample, if the policy weighs these.
    """

    table: TrustTable
    policy: TrustPolicy
    limits: Mapping[str, Sequence[str]] = field(default_factory=dict)
    weighs_captions: bool = False
    samples: SampleScores | None = None

    def weights(self, without: Collection[str] = ()) -> TrustWeights:
        """The weights by the policy, as if the sources ``without`` (teachers, :data:`CAPTIONS`) did not exist.

        The policy does not see their scores. A source that was second to one of them counts as the best.
        """
        limits = {**self.limits, **dict.fromkeys(without, ())}
        given = policy_weights(self.table, self.policy, limits=limits, weighs_captions=self.weighs_captions)
        if self.samples is not None:
            weights = self.samples.weights(without_captions(self.table), self.policy, limits)
            means = self.samples.means(weights, len(self.table.domains))
            given = replace(given, teachers=means, samples=weights)
        return replace(given, captions=np.zeros_like(given.captions)) if CAPTIONS in without else given


def without_captions(table: TrustTable) -> TrustTable:
    """The teachers' rows of a table."""
    return _rows(table, [row for row, name in enumerate(table.teachers) if name != CAPTIONS])


def only_captions(table: TrustTable) -> TrustTable | None:
    """The captions' row of a table, if it has one."""
    rows = [row for row, name in enumerate(table.teachers) if name == CAPTIONS]
    return _rows(table, rows) if rows else None


def _rows(table: TrustTable, rows: Sequence[int]) -> TrustTable:
    chosen = list(rows)
    return replace(
        table,
        teachers=tuple(table.teachers[row] for row in chosen),
        accuracy=table.accuracy[chosen],
        lower=table.lower[chosen],
        upper=table.upper[chosen],
    )


def _allowed(table: TrustTable, limits: Mapping[str, Sequence[str]] | None) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(T, M) whether the registry allows a teacher in a domain."""
    rows = [
        [domain in (limits or {}).get(teacher, table.domains) for domain in table.domains] for teacher in table.teachers
    ]
    return np.array(rows, dtype=bool).reshape(table.accuracy.shape)


def domains_without_teacher(
    table: TrustTable, weights: Array, limits: Mapping[str, Sequence[str]] | None = None
) -> tuple[DomainWithoutTeacher, ...]:
    """Domains in which every weight is 0, in the table's order; ``limits`` as for :func:`policy_weights`."""
    found, allowed = [], _allowed(table, limits)
    for column in np.flatnonzero(~(weights > 0).any(axis=0)):
        scores = table.accuracy[:, column]
        measured = bool((~np.isnan(scores)).any())
        row = int(np.nanargmax(scores)) if measured else 0
        found.append(
            DomainWithoutTeacher(
                domain=table.domains[column],
                best=table.teachers[row] if measured else None,
                accuracy=float(scores[row]) if measured else math.nan,
                lower=float(table.lower[row, column]) if measured else math.nan,
                upper=float(table.upper[row, column]) if measured else math.nan,
                chance=float(table.chance[column]),
                limited=not allowed[row, column],
                by=table.by,
            )
        )
    return tuple(found)


def domains_of_one_signal(table: TrustTable, weights: Array) -> dict[str, dict[str, tuple[str, ...]]]:
    """Domain -> signal -> its teachers, where every teacher gives images alone or texts alone."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for column, domain in enumerate(table.domains):
        names = [table.teachers[row] for row in np.flatnonzero(weights[:, column] > 0)]
        if names and all(name in table.probed for name in names):
            signals = dict.fromkeys(table.probed[name] for name in names)
            found[domain] = {s: tuple(name for name in names if table.probed[name] == s) for s in signals}
    return found


def teachers_without_domain(
    table: TrustTable, weights: Array, limits: Mapping[str, Sequence[str]] | None = None
) -> tuple[TeacherWithoutDomain, ...]:
    """Teachers whose every weight is 0, in the table's order; ``limits`` as for :func:`policy_weights`.

    One whose limit is no domain is not among them: it is not to teach.
    """
    found, limits = [], limits or {}
    allowed = np.where(_allowed(table, limits), table.accuracy, np.nan)
    for row in np.flatnonzero(~(weights > 0).any(axis=1)):
        if table.teachers[row] in limits and not limits[table.teachers[row]]:
            continue
        scores = allowed[row]
        best = None if np.isnan(scores).all() else int(np.nanargmax(scores))
        found.append(
            TeacherWithoutDomain(
                teacher=table.teachers[row],
                best_domain=None if best is None else table.domains[best],
                accuracy=math.nan if best is None else float(scores[best]),
                limited=table.teachers[row] in limits,
            )
        )
    return tuple(found)


def warn_about_gaps(
    uncovered: Sequence[DomainWithoutTeacher], idle: Sequence[TeacherWithoutDomain], reporter: Reporter
) -> None:
    """Warn about domains without a teacher, all in one warning, and about teachers without a domain."""
    if len(uncovered) == 1:
        reporter.warn(uncovered[0].message)
    elif uncovered:
        domains: dict[str, list[str]] = {}
        for gap in uncovered:
            domains.setdefault(gap.reason, []).append(gap.domain)
        named = ", ".join(f"'{gap.domain}'" for gap in uncovered)
        reasons = "".join(f"\n  {', '.join(names)}: {reason}" for reason, names in domains.items())
        reporter.warn(f"domains {named}: no teacher may teach them{reasons}")
    for teacher in idle:
        reporter.warn(teacher.message)
