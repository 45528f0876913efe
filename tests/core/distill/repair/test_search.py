"""Which candidate is chosen, and which domains count as lost."""

from __future__ import annotations

import pytest

from kdkit.core.distill.repair.search import choose_attempt, keeps_enough, lost_domains
from kdkit.core.project.lineage import RetentionRecord
from kdkit.core.project.repair_record import RepairAttempt
from tests.lineages import guard, retention


@pytest.mark.parametrize(
    ("mean_failed", "failed", "lost"),
    [(False, ("mri",), ("mri",)), (True, (), ("ct", "mri")), (True, ("mri",), ("mri", "ct"))],
)
def test_where_the_mean_breaks_the_guard_every_loss_counts(
    mean_failed: bool, failed: tuple[str, ...], lost: tuple[str, ...]
) -> None:
    changes = [{"domain": name, "points": points} for name, points in (("ct", -2.0), ("mri", -4.0), ("us", 1.0))]
    verdict = guard(*failed, promoted=False) | {"mean_failed": mean_failed}
    assert lost_domains(RetentionRecord.from_json(retention(*changes, guard=verdict))) == lost


def attempt(
    weight: float, gain: float | None, mean: float, *, rehearsed: int = 0, passed: bool = True
) -> RepairAttempt:
    return RepairAttempt(rehearsed, weight, gain, "ct", mean, mean, passed=passed)


@pytest.mark.parametrize(
    ("gains", "best", "enough"),
    [
        ((40.0, 30.0, 20.0), 1, False),
        ((40.0, 37.0, 20.0), 1, True),
        ((40.0, 20.0, 37.0), 2, True),
        ((40.0, 20.0, 20.0), 2, False),  # of equals, the one that keeps most
        ((40.0, 0.0, -1.0), None, False),
        ((None, None, None), 1, False),  # the largest weight that passes
    ],
)
def test_the_candidate_that_gains_most_is_chosen(
    gains: tuple[float | None, ...], best: int | None, enough: bool
) -> None:
    attempts = [
        attempt(1.0, gains[0], -9.0, passed=False),
        attempt(0.5, gains[1], -2.0),
        attempt(0.25, gains[2], -0.5),
    ]
    assert (choose_attempt(attempts), keeps_enough(attempts)) == (best, enough)


def test_without_a_measure_of_the_gain_the_rehearsed_student_is_chosen() -> None:
    attempts = [attempt(1.0, None, -9.0, passed=False), attempt(0.5, None, -1.0), attempt(1.0, None, -2.0, rehearsed=4)]
    assert choose_attempt(attempts) == 2
