"""The contracts of tasks and recipes find what is wrong on purpose here."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdkit.core.contracts import DomainScore, ModelFeatures, Sample
from kdkit.testing import RecipeContract, TaskContract, checks
from tests.testing.harness import failed, found_by, skipped

HERE = f"{__name__}:"
SPEC = {"headline": "hits"}


class Nearest:
    """Right: how many images are nearer to the text of their own class's first sample than to any other."""

    def evaluate(self, view: ModelFeatures, samples: Sequence[Sample]) -> list[DomainScore]:
        domains = dict.fromkeys(sample.domain for sample in samples)
        return [self.score(view, d, [s for s in samples if s.domain == d]) for d in domains]

    def score(self, view: ModelFeatures, domain: str, samples: list[Sample]) -> DomainScore:
        texts = list(dict.fromkeys(sample.text for sample in samples))
        guessed = (view.image(samples) @ view.text(texts).T).argmax(axis=1)
        right = np.array([texts[g] == s.text for g, s in zip(guessed, samples, strict=True)], dtype=float)
        value = float(right.mean())
        spread = 0.5 / len(samples) ** 0.5
        interval = (max(0.0, value - spread), min(1.0, value + spread))
        ids = tuple(sample.id for sample in samples)
        return DomainScore(domain, len(samples), {"hits": value}, {"hits": interval}, ids=ids, outcomes={"hits": right})


class OneScore(Nearest):
    def evaluate(self, view: ModelFeatures, samples: Sequence[Sample]) -> list[DomainScore]:
        return super().evaluate(view, samples)[:1]


class Percent(Nearest):
    def score(self, view: ModelFeatures, domain: str, samples: list[Sample]) -> DomainScore:
        return replace(super().score(view, domain, samples), metrics={"hits": 90.0})


class Backwards(Nearest):
    def score(self, view: ModelFeatures, domain: str, samples: list[Sample]) -> DomainScore:
        return replace(super().score(view, domain, samples), intervals={"hits": (0.9, 0.1)})


class NoInterval(Nearest):
    def score(self, view: ModelFeatures, domain: str, samples: list[Sample]) -> DomainScore:
        return replace(super().score(view, domain, samples), intervals={})


class OtherOutcomes(Nearest):
    def score(self, view: ModelFeatures, domain: str, samples: list[Sample]) -> DomainScore:
        found = super().score(view, domain, samples)
        return replace(found, outcomes={"hits": 1 - found.outcomes["hits"]})


class Unseeded(Nearest):
    def score(self, view: ModelFeatures, domain: str, samples: list[Sample]) -> DomainScore:
        found = super().score(view, domain, samples)
        return replace(found, intervals={"hits": (found.metrics["hits"] * random.random(), 1.0)})


class OtherMetric(Nearest):
    def score(self, view: ModelFeatures, domain: str, samples: list[Sample]) -> DomainScore:
        found = super().score(view, domain, samples)
        return replace(found, metrics={"misses": 1.0}, intervals={}, outcomes={})


class OutsideItsBounds(Nearest):
    def score(self, view: ModelFeatures, domain: str, samples: list[Sample]) -> DomainScore:
        return replace(super().score(view, domain, samples), figures={"rank": (3.0, 1.0, 2.0)})


class NeedsSamples(Nearest):
    def evaluate(self, view: ModelFeatures, samples: Sequence[Sample]) -> list[DomainScore]:
        view.text([samples[0].text])
        return super().evaluate(view, samples)


MISTAKES = [
    (OneScore, "test_one_score_per_domain", "expected one score for each of ['ct', 'oct'], got ['ct']"),
    (Percent, "test_metrics_are_fractions", "ct: expected hits in [0, 1], got 90.0"),
    (Backwards, "test_intervals", "expected 0 <= low <= hits <= high <= 1, got 0.9"),
    (NoInterval, "test_intervals", "ct: no interval of hits"),
    (OtherOutcomes, "test_outcomes", "ct: outcomes of hits: their mean is"),
    (Unseeded, "test_deterministic", "metrics or intervals differ when evaluated again"),
    (OtherMetric, "test_headline", "ct: expected the metric hits, got ['misses']"),
    (OutsideItsBounds, "test_figures", "ct: expected low <= rank <= high, got 1.0, 3.0, 2.0"),
    (NeedsSamples, "test_nothing_to_score", "IndexError"),
]


def test_a_task_that_is_right_passes() -> None:
    found = found_by(TaskContract, HERE + "Nearest", spec=SPEC)
    assert failed(found) == {}
    assert skipped(found) == set()


def test_a_task_that_reads_answers_needs_an_example() -> None:
    found = found_by(TaskContract, HERE + "Nearest", spec={"reads": "answers"})
    assert {check.status for check in found} == {"skipped"}


@pytest.mark.parametrize(("task", "check", "message"), MISTAKES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mistake_is_found(task: type[Any], check: str, message: str) -> None:
    found = failed(found_by(TaskContract, HERE + task.__name__, spec=SPEC))
    assert message in found.get(check, f"passed; failed: {found}")


def test_every_check_finds_a_mistake() -> None:
    assert {name for name, _ in checks(TaskContract)} == {check for _, check, _ in MISTAKES}


RECIPE = """\
name: it
summary: feature distillation
losses:
  - {name: fd, options: {reduction: mean}}
trust: {policy: threshold, options: {value: 0.5}}
optimizer: {lr: 1.0e-3, batch_size: 32, epochs: 1}
"""


@pytest.mark.parametrize(
    ("text", "check", "message"),
    [
        (RECIPE, "", ""),
        (
            RECIPE.replace("name: it", "name: that"),
            "test_understood",
            "expected 'name: it' in the file, got 'name: that'",
        ),
        (RECIPE.replace("name: fd", "name: df"), "test_understood", "unknown loss 'df'"),
        (RECIPE.replace("value:", "least:"), "test_parts_can_be_made", "has no option 'least'"),
        (RECIPE.replace("0.5", "5"), "test_parts_can_be_made", "value is 5"),
        (RECIPE.replace("lr:", "rate:"), "test_understood", "rate"),
    ],
    ids=["right", "other-name", "unknown-loss", "unknown-option", "wrong-value", "no-recipe"],
)
def test_recipes(text: str, check: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / f"recipes_of_{abs(hash(text))}"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "it.yaml").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = failed(found_by(RecipeContract, spec={"resource": f"{package.name}:it.yaml"}))
    assert (check in found) == bool(check), found
    assert message in found.get(check, "")
