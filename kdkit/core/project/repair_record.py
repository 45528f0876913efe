"""What was tried to repair a candidate that broke the guard, as the lineage keeps it."""

from __future__ import annotations

from dataclasses import dataclass

from kdkit.core.base.json_record import JsonRecord


@dataclass(frozen=True)
class RepairAttempt(JsonRecord):
    """Weights that were judged on the calibration split.

    Attributes:
        rehearsed: steps of additional rehearsal; 0 for the student as it was trained.
        weight: a of (1 - a) parent + a trained; 1 for no interpolation.
        gain: points gained on what is new; None if that cannot be measured.
        worst: the old domain that lost most (or gained least), with its change in ``points``.
        mean: mean change of the old domains in points.
        passed: the guard would promote them.

    Example:
        >>> RepairAttempt(20, 0.5, 31.0, "ct", -2.5, -0.4, passed=True).describe("v1")
        '0.5 of the way from v1, after 20 more steps with rehearsal'
    """

    rehearsed: int
    weight: float
    gain: float | None
    worst: str | None
    points: float | None
    mean: float | None
    passed: bool

    def describe(self, parent: str | None) -> str:
        """How they were made; ``parent``: name of the version that the increment started from."""
        parts = [] if self.weight == 1 else [f"{self.weight:g} of the way from {parent}"]
        parts += [f"after {self.rehearsed} more steps with rehearsal"] if self.rehearsed else []
        return ", ".join(parts) or "as trained"


@dataclass(frozen=True)
class RepairRecord(JsonRecord):
    """A repair.

    Attributes:
        attempts: in the order in which they were judged; the first is the candidate as it was trained.
        kept: number of the attempt that became the version; None: nothing passed, so the candidate is refused.
        new: domains of the fresh samples, on which the gain is measured.
        rehearsed: domains that were rehearsed more.
        seconds: time of the repair, evaluations included.
    """

    attempts: tuple[RepairAttempt, ...]
    kept: int | None
    new: tuple[str, ...]
    rehearsed: tuple[str, ...]
    seconds: float

    def describe(self, parent: str | None) -> str:
        """One sentence for people."""
        tried = f"{len(self.attempts)} candidates"
        if self.kept is None:
            return f"repair failed: of {tried}, none passes the guard on the calibration split and gains anything"
        made = self.attempts[self.kept].describe(parent)
        return f"repaired, {made}: chosen on the calibration split among {tried}, so its scores there are optimistic"
