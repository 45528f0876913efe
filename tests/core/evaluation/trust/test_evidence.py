"""Calibration samples against what trust needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from kdkit.core.data.check import check_data
from kdkit.core.evaluation.trust.evidence import EVIDENCE, Evidence, evidence_of
from kdkit.plugins.policies.policies import All, Threshold, TopK
from tests.core.data.projects import make_project, row


def wilson_of(correct: int, count: int) -> tuple[float, float]:
    interval = binomtest(correct, count).proportion_ci(0.95, method="wilson")
    return interval.low, interval.high


@pytest.mark.parametrize("counts", [[1, 1], [3, 1], [10, 5, 5], [1] * 20])
def test_what_is_needed_is_where_the_bound_of_a_perfect_teacher_exceeds_chance(counts: list[int]) -> None:
    chance = max(1 / len(counts), max(counts) / sum(counts))
    expected = next(n for n in range(1, 2000) if wilson_of(n, n)[0] > chance)
    found = evidence_of("ct", counts, TopK(k=1))
    assert (found.samples, found.needed) == (sum(counts), expected)


def test_each_policy_has_its_own_needs() -> None:
    strict = next(n for n in range(1, 2000) if wilson_of(n, n)[0] >= 0.9)
    assert evidence_of("ct", [5, 5], Threshold(value=0.9, on="lower")).needed == strict
    assert evidence_of("ct", [5, 5], Threshold(value=0.9)).needed == 1
    assert evidence_of("ct", [5, 5], All()).needed == 1
    assert evidence_of("ct", [5, 5], lambda table: np.zeros_like(table.accuracy)).needed is None
    low, high = wilson_of(80, 100)
    assert evidence_of("ct", [50, 50], All()).half_width == pytest.approx((high - low) / 2, abs=1e-4)


def test_small_domains_fail_the_check_and_wide_intervals_are_a_note(tmp_path: Path) -> None:
    rows = [row(i, domain="tiny", label=f"{i % 2}", split="calibration") for i in range(2)]
    rows += [row(2 + i, domain="small", label=f"{i % 2}", split="calibration") for i in range(12)]
    rows += [row(14, domain="small", label="0", split="test"), row(15, domain="captions", label=None)]
    rows += [row(16, domain="one class", label="x", split="calibration")]
    project = make_project(tmp_path, rows, trust={"policy": "top-k"})
    report = check_data(project, further=[EVIDENCE])
    (tiny,) = report.items("evidence", "problem")
    assert isinstance(tiny, Evidence)
    assert (tiny.domain, tiny.samples, tiny.needed) == ("tiny", 2, 4)
    notes = report.items("evidence", "note")
    assert [one.domain for one in notes if isinstance(one, Evidence)] == ["small"]
    assert ("small", "1") in notes  # without a test sample
    assert "evidence" in report.looked_at
    broken = make_project(tmp_path, rows, recipe="./gone.yaml")
    assert list(check_data(broken, further=[EVIDENCE]).not_looked_at) == ["evidence"]
