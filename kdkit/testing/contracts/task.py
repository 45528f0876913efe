"""What every evaluation task promises: one score per domain, with metrics and intervals that can be believed."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kdkit.core.contracts import (
    FINDINGS,
    METADATA,
    QUESTION,
    DomainScore,
    ModelAnswers,
    ModelFeatures,
    Sample,
    Split,
)
from kdkit.core.plugin_system.catalogue import Family, resolve
from kdkit.testing.contract import Contract, skip

Array = np.ndarray[Any, Any]
PROMPTS = {
    "ct": {"nodule": ["a ct scan of a nodule", "nodule"], "cyst": ["a cyst"], "normal": ["a normal ct scan"]},
    "oct": {"drusen": ["drusen"], "healthy": ["a healthy retina"]},
}
"""Domain -> class -> prompts, as a project's registry has them."""


class SyntheticView:
    """A model with features by formula: a text has a random direction of its own, an image that of its class.

    Args:
        noise: length of the random part of an image's feature; 0 for a model that is always right.
    """

    def __init__(self, noise: float = 1.0, width: int = 16) -> None:
        self.noise, self.width = noise, width

    @property
    def name(self) -> str:
        return "synthetic"

    def image(self, samples: Sequence[Sample]) -> Array:
        """(N, D) float32, unit rows."""
        return _unit([self._direction(_prompt(sample)) + self.noise * self._direction(sample.id) for sample in samples])

    def text(self, texts: Sequence[str]) -> Array:
        """(N, D) float32, unit rows."""
        return _unit([self._direction(text) for text in texts])

    def captions(self, samples: Sequence[Sample]) -> Array:
        """(N, D) float32, unit rows."""
        return self.text([sample.text for sample in samples])

    def _direction(self, text: str) -> Array:
        drawn = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(self.width)
        return drawn / float(np.linalg.norm(drawn))


class TaskContract(Contract):
    """Subclass with ``name``; override :meth:`view` and :meth:`samples` for a task on other features or on answers."""

    family: ClassVar[Family] = "task"

    def make(self, **options: Any) -> Any:
        """A new task, with what core gives to factories by the names of their arguments."""
        takes = inspect.signature(resolve(self.entry.spec.factory)).parameters
        calibration = [sample for sample in self.training() if sample.split == "calibration"]
        findings = {
            domain: {name: (texts, [f"no {name}"]) for name, texts in classes.items()}
            for domain, classes in PROMPTS.items()
        }
        known = {
            "prompts": PROMPTS,
            "training": self.training(),
            "calibration": calibration,
            "findings": findings,
        }
        given = {name: value for name, value in known.items() if name in takes}
        return super().make(**{**given, **options})

    def view(self) -> ModelFeatures | ModelAnswers:
        """A model that is often right.

        Raises:
            SkipTest: the task reads answers; override ``view`` with an example.
        """
        if self.entry.spec.reads == "answers":
            raise skip("a task that reads answers needs an example; override view() and samples() of TaskContract")
        return SyntheticView()

    def samples(self) -> list[Sample]:
        """Thirty labeled samples of three classes in ``ct``, twenty of two in ``oct``; each has an image of its own, a
        finding, and metadata: a question with its answer, a time and an event."""
        return _samples("test")

    def training(self) -> list[Sample]:
        """As many for training, and for calibration."""
        return [*_samples("train"), *_samples("calibration")]

    def test_one_score_per_domain(self) -> None:
        """There is one score for each domain of the samples, of as many samples as there are."""
        samples, scores = self.samples(), self._scores()
        domains = sorted({sample.domain for sample in samples})
        found = sorted(score.domain for score in scores)
        assert found == domains, f"expected one score for each of {domains}, got {found}"
        for score in scores:
            assert isinstance(score, DomainScore), f"expected DomainScore, got {type(score).__name__}"
            there = sum(sample.domain == score.domain for sample in samples)
            assert 0 < score.count <= there, f"{score.domain}: expected a count of 1 to {there}, got {score.count}"

    def test_metrics_are_fractions(self) -> None:
        """Every metric is in [0, 1]."""
        for score in self._scores():
            assert score.metrics, f"{score.domain}: expected metrics, got none"
            for metric, value in score.metrics.items():
                assert 0 <= value <= 1, f"{score.domain}: expected {metric} in [0, 1], got {value}"

    def test_intervals(self) -> None:
        """Every metric has an interval, low to high, in [0, 1], around it; its level is in (0, 1)."""
        for score in self._scores():
            assert 0 < score.level < 1, f"{score.domain}: expected a level in (0, 1), got {score.level}"
            lacking = sorted(set(score.metrics) - set(score.intervals))
            assert not lacking, f"{score.domain}: no interval of {', '.join(lacking)}"
            for metric, (low, high) in score.intervals.items():
                value = score.metrics[metric]
                ordered = 0 <= low <= value <= high <= 1
                assert ordered, (
                    f"{score.domain}: expected 0 <= low <= {metric} <= high <= 1, got {low}, {value}, {high}"
                )

    def test_outcomes(self) -> None:
        """Outcomes are one number per sample of ``ids``, and their mean is the metric."""
        known = {sample.id for sample in self.samples()}
        for score in self._scores():
            strange = sorted(set(score.ids) - known)
            assert not strange, f"{score.domain}: ids of no sample, such as {strange[0]!r}"
            for metric, outcomes in score.outcomes.items():
                what = f"{score.domain}: outcomes of {metric}"
                assert outcomes.shape == (len(score.ids),), (
                    f"{what}: expected ({len(score.ids)},), got {outcomes.shape}"
                )
                mean, value = float(outcomes.mean()), score.metrics[metric]
                assert abs(mean - value) < 1e-9, f"{what}: their mean is {mean:g}, the metric {value:g}"

    def test_headline(self) -> None:
        """The metric that stands for the task is among the metrics of every domain."""
        headline = self.entry.spec.headline
        for score in self._scores():
            assert headline in score.metrics, (
                f"{score.domain}: expected the metric {headline}, got {list(score.metrics)}"
            )

    def test_figures(self) -> None:
        """Figures are a value between its bounds, low to high; pooled names are those of metrics or figures."""
        for score in self._scores():
            for name, (value, low, high) in score.figures.items():
                assert low <= value <= high, (
                    f"{score.domain}: expected low <= {name} <= high, got {low}, {value}, {high}"
                )
            strange = sorted(set(score.pooled) - {*score.metrics, *score.figures})
            assert not strange, f"{score.domain}: pooled names {strange}, which it does not give"

    def test_deterministic(self) -> None:
        """Evaluated twice it gives the same metrics and intervals: draws have a seed."""
        first, second = self._scores(), self._scores()
        for one, other in zip(first, second, strict=True):
            same = (dict(one.metrics), dict(one.intervals)) == (dict(other.metrics), dict(other.intervals))
            assert same, f"{one.domain}: metrics or intervals differ when evaluated again"

    def test_nothing_to_score(self) -> None:
        """Without samples there is no score, and no error."""
        scores = list(self.make().evaluate(self.view(), []))
        assert scores == [], f"expected no score, got {len(scores)}"

    def _scores(self) -> list[DomainScore]:
        return list(self.make().evaluate(self.view(), self.samples()))


def _samples(split: Split) -> list[Sample]:
    return [
        Sample(name, Path(f"{name}.png"), prompts[0], domain, label, split, extra=_extra(label, number))
        for domain, classes in PROMPTS.items()
        for label, prompts in classes.items()
        for number in range(10)
        for name in (f"{domain}-{label}-{split}-{number}",)
    ]


def _extra(label: str, number: int) -> dict[str, Any]:
    """What tasks read beside labels and captions."""
    facts = {QUESTION: "what is it?", "answer": label, "time": 1.0 + number, "event": number % 2}
    return {FINDINGS: [label], METADATA: facts}


def _prompt(sample: Sample) -> str:
    return PROMPTS.get(sample.domain, {}).get(str(sample.label), [sample.text])[0]


def _unit(rows: Sequence[Array]) -> Array:
    stacked = np.stack(rows)
    return np.asarray(stacked / np.linalg.norm(stacked, axis=1, keepdims=True), dtype=np.float32)
