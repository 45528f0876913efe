"""Answers of a student that are kept between evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from kdkit.core.base.journal import Journal
from kdkit.core.contracts import Sample
from kdkit.core.evaluation.answers import CachedAnswers, StudentAnswers
from tests.core.evaluation.trust.synthetic import make_table

TABLE = make_table(10)
SAMPLES = [TABLE.samples[row] for row in range(40)]


class Counting:
    """A student that counts its answers, and is interrupted at the sample ``stop``."""

    def __init__(self, stop: str = "") -> None:
        self.asked, self.stop = list[str](), stop

    def answer(self, samples: Sequence[Sample]) -> list[str]:
        if any(sample.id == self.stop for sample in samples):
            raise KeyboardInterrupt
        self.asked += [sample.id for sample in samples]
        return [f"{sample.id}!" for sample in samples]


def cached(path: Path, student: object, fingerprint: str = "one") -> CachedAnswers:
    return CachedAnswers("v1", Journal(path, {"student": fingerprint}), TABLE, lambda: cast(StudentAnswers, student))


def refuse() -> Any:
    raise AssertionError("no model is opened")


def test_an_interrupted_evaluation_continues(tmp_path: Path) -> None:
    path, first, second = tmp_path / "kept" / "one.jsonl", Counting(SAMPLES[20].id), Counting()
    with pytest.raises(KeyboardInterrupt):
        cached(path, first).answer(SAMPLES)
    assert len(first.asked) == 16, "the first batch"
    found = cached(path, second).answer(SAMPLES)
    assert found == [f"{sample.id}!" for sample in SAMPLES]
    assert first.asked + second.asked == [sample.id for sample in SAMPLES]
    whole = CachedAnswers("v1", Journal(path, {"student": "one"}), TABLE, refuse)
    assert whole.answer(SAMPLES[::-1]) == found[::-1]
    other = Counting()
    cached(path, other, "another student").answer(SAMPLES[:2])
    assert len(other.asked) == 2
