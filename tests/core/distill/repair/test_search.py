"""Which domains count as lost."""

from __future__ import annotations

import pytest

from kdkit.core.distill.repair.search import lost_domains
from kdkit.core.project.lineage import RetentionRecord
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
