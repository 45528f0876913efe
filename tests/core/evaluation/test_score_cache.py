"""What a cached score depends on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdkit.core.contracts import DomainScore, ModelFeatures, Sample
from kdkit.core.evaluation import score_cache
from kdkit.core.evaluation.score_cache import CachedTask


class Counted:
    """A task that counts its evaluations."""

    calls = 0

    def evaluate(self, view: ModelFeatures, samples: Sequence[Sample]) -> Sequence[DomainScore]:  # noqa: ARG002
        Counted.calls += 1
        return [DomainScore("ct", 1, {"accuracy": 1.0}, {"accuracy": (1.0, 1.0)})]


def cached(folder: Path) -> CachedTask:
    table = SimpleNamespace(ids=[], digests=SimpleNamespace(tolist=list))
    evaluator: Any = SimpleNamespace(
        task=Counted(), table=table, training=[], calibration=[], settings={}, prompts={}, subgroups={}
    )
    return CachedTask(evaluator, folder)


def test_a_change_of_the_code_that_measures_makes_scores_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view, really = SimpleNamespace(fingerprint=lambda: "a"), score_cache._source_digest
    Counted.calls = 0
    for _ in range(2):
        (score,) = cached(tmp_path).evaluate(view, [])
        assert (score.metrics["accuracy"], Counted.calls) == (1.0, 1)
    monkeypatch.setattr(score_cache, "_source_digest", lambda kind: "new" if kind is CachedTask else really(kind))
    cached(tmp_path).evaluate(view, [])
    assert Counted.calls == 2
