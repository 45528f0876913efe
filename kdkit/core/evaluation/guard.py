"""The promotion guard: how much accuracy a candidate may lose, and by which test."""

from __future__ import annotations

from dataclasses import dataclass

from kdkit.core.evaluation.retention import Retention
from kdkit.core.project.lineage import DomainChange
from kdkit.core.project.registry.schema import GuardEntry


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate may be promoted.

    Attributes:
        failed: domains and further checks that lost more than their tolerance, worst first.
        uncertain: those whose point estimate exceeds the tolerance while the interval of the change contains 0.
            They stop promotion only with ``guard.test: point``.
        mean_failed: the mean over the old domains fails the same test: many small losses, each within its tolerance.
    """

    failed: tuple[DomainChange, ...]
    uncertain: tuple[DomainChange, ...]
    mean_failed: bool = False

    @property
    def promoted(self) -> bool:
        return not self.failed and not self.mean_failed


def apply_guard(retention: Retention, guard: GuardEntry) -> Verdict:
    """Test every old domain, their mean, and every further check (subgroups, other tasks) against its tolerance.

    ``test: bootstrap`` (the default) fails a domain that lost more points than tolerated *and* whose paired
    bootstrap interval lies below 0: on a few hundred calibration samples, one point is a handful of images.
    ``test: point`` decides by the point estimate alone.
    """
    over = [retention.domains[domain] for domain in retention.over_tolerance]
    over += [change for change in retention.checks if change.over_tolerance]
    over.sort(key=lambda change: change.points)
    point = guard.test == "point"
    failed = tuple(change for change in over if point or change.significant)
    mean_failed = retention.mean < -guard.tolerance and (point or retention.high < 0)
    return Verdict(failed, tuple(change for change in over if change not in failed), bool(mean_failed))


def describe_change(change: DomainChange) -> str:
    """``ct: 91.0 % -> 84.5 % (-6.5 points, 95 % interval -9.0 to -4.0, on 200 samples; tolerance 1)``."""
    groups = f" of {change.groups} groups" if change.groups else ""
    return (
        f"{change.name}: {100 * change.before:.1f} % -> {100 * change.after:.1f} % ({change.points:+.1f} points, "
        f"95 % interval {change.low:+.1f} to {change.high:+.1f}, on {change.count} samples{groups}; "
        f"tolerance {change.tolerance:g})"
    )
