"""Promotion is a contract: what a candidate may lose, and how it is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kdkit.core.evaluation.retention import Change, Retention
from kdkit.core.project.registry.schema import GuardEntry


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate may be promoted.

    Attributes:
        broken: domains that lost more than their tolerance, worst first.
        doubtful: domains whose estimate is beyond the tolerance but whose loss may be chance (the interval of
            the change contains 0); they do not stop promotion unless ``guard.judge`` is ``estimate``.
        mean_broken: the mean over the old domains lost more than the tolerance, by the same rule: many small
            losses, none of which is certain alone.
    """

    broken: tuple[Change, ...]
    doubtful: tuple[Change, ...]
    mean_broken: bool = False

    @property
    def promoted(self) -> bool:
        return not self.broken and not self.mean_broken

    def to_json(self) -> dict[str, Any]:
        return {
            "promoted": self.promoted,
            "broken": [change.domain for change in self.broken],
            "doubtful": [change.domain for change in self.doubtful],
            "mean_broken": self.mean_broken,
        }


def judge(retention: Retention, guard: GuardEntry) -> Verdict:
    """Apply the registry's ``guard``.

    With ``judge: interval`` (the default) a domain breaks the guard when it lost more points than tolerated
    *and* the paired bootstrap interval of its change lies below 0: on a few hundred calibration samples one
    point is a handful of images, and a guard that trips by chance is soon switched off. With ``judge:
    estimate`` the point estimate alone decides.
    """
    over = [retention.domains[domain] for domain in retention.broken]
    strict = guard.judge == "estimate"
    broken = tuple(change for change in over if strict or change.high < 0)
    mean_broken = retention.mean < -guard.tolerance and (strict or retention.high < 0)
    return Verdict(broken, tuple(change for change in over if change not in broken), bool(mean_broken))


def describe(change: Change) -> str:
    """``ct: 91.0 % -> 84.5 % (-6.5 points, 95 % interval -9.0 to -4.0; tolerance 1)``."""
    return (
        f"{change.domain}: {100 * change.before:.1f} % -> {100 * change.after:.1f} % ({change.points:+.1f} points, "
        f"95 % interval {change.low:+.1f} to {change.high:+.1f}, on {change.count} samples; "
        f"tolerance {change.tolerance:g})"
    )
