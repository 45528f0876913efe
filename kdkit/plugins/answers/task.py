"""The evaluation task ``answers``: texts against references, per domain, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import DomainScore, ModelAnswers, Sample
from kdkit.core.evaluation.metrics import LEVEL, RESAMPLES, SEED, accuracy, bootstrap, interval
from kdkit.plugins.answers.boxes.scoring import THRESHOLD, written_boxes
from kdkit.plugins.answers.grading import GRADERS, HEADLINE, Graded, Reply, Tools
from kdkit.plugins.answers.questions import question_type
from kdkit.plugins.answers.text.meteor import make_meteor
from kdkit.plugins.answers.text.spice import Spice

Array = np.ndarray[Any, Any]
FEW = 30


class Answers:
    """Scores answers per domain by the metrics of the domain's task; ``accuracy`` is its headline, in [0, 1].

    Args:
        meteor: ``lite`` (plain Python, reported as ``meteor_lite`` and ``mbmr_lite``) or ``jar`` (METEOR 1.5).
        corenlp: folder with CoreNLP 3.6.0; empty: SPICE is unavailable.
        overlap: IoU that a box must exceed to be found.
        resamples, seed, level: of the bootstrap.

    Raises:
        KdkitError: a configured METEOR or SPICE that cannot run.
    """

    def __init__(
        self,
        *,
        meteor: str = "lite",
        corenlp: str = "",
        overlap: float = THRESHOLD,
        resamples: int = RESAMPLES,
        seed: int = SEED,
        level: float = LEVEL,
    ) -> None:
        self.tools = Tools(make_meteor(meteor), Spice(Path(corenlp)) if corenlp else None, overlap)
        self.resamples, self.seed, self.level = resamples, seed, level

    def evaluate(self, model: ModelAnswers, samples: Sequence[Sample]) -> Sequence[DomainScore]:
        """One score per domain with samples of a known task, in the order in which domains first occur.

        A sample's task is ``extra["task"]``, or the part of its domain before the slash; its text is the reference.
        Grounding questions without a box in the reference are not scored, as published.

        Raises:
            KdkitError: a model without answers, or with too few; a domain with samples of several tasks.
        """
        by_domain: dict[str, list[Sample]] = {}
        for sample in samples:
            if _scored(sample):
                by_domain.setdefault(sample.domain, []).append(sample)
        if not by_domain:
            return []
        answers = iter(_answers(model, [sample for group in by_domain.values() for sample in group]))
        return [self._score(domain, group, list(islice(answers, len(group)))) for domain, group in by_domain.items()]

    def question_type(self, sample: Sample) -> str:
        """Closed questions with yes or no, other closed ones, and all others."""
        return question_type(sample.text, sample.extra.get("answer_type")) if task_of(sample) == "vqa" else ""

    def grade(self, samples: Sequence[Sample], answers: Sequence[str]) -> Array:
        """(N,) the ``accuracy`` of each answer; all samples are of one task and have a reference that is scored."""
        graded = GRADERS[task_of(samples[0])](_replies(samples, answers), self.tools)
        return graded.outcomes[HEADLINE]

    def _score(self, domain: str, samples: Sequence[Sample], answers: Sequence[str]) -> DomainScore:
        tasks = sorted({task_of(sample) for sample in samples})
        if len(tasks) > 1:
            raise KdkitError(
                "KD-ANS-012",
                f"the domain '{domain}' has samples of several tasks: {', '.join(tasks)}",
                where=samples[0].origin,
                fix="a domain is task and modality, such as 'vg/ct'",
            )
        graded = GRADERS[tasks[0]](_replies(samples, answers), self.tools)
        names = [*graded.outcomes, *graded.others]
        values = _values(graded, np.ones((len(samples), 1)))[0]
        drawn = bootstrap(graded.strata, lambda counts: _values(graded, counts), self.resamples, self.seed)
        few = (f"only {len(samples)} samples: the intervals are rough",) if len(samples) < FEW else ()
        return DomainScore(
            domain=domain,
            count=len(samples),
            metrics={name: float(value) for name, value in zip(names, values, strict=True)},
            intervals={
                name: _around(value, interval(column, self.level))
                for name, value, column in zip(names, values, drawn.T, strict=True)
            },
            level=self.level,
            ids=tuple(sample.id for sample in samples),
            outcomes=dict(graded.outcomes),
            notes=(*graded.notes, *few),
        )


def _replies(samples: Sequence[Sample], answers: Sequence[str]) -> list[Reply]:
    return [Reply.of(a, s.text, s.extra.get("answer_type")) for s, a in zip(samples, answers, strict=True)]


def task_of(sample: Sample) -> str:
    """``extra["task"]``, or the first part of the domain."""
    return str(sample.extra.get("task") or sample.domain.partition("/")[0])


def _scored(sample: Sample) -> bool:
    task = task_of(sample)
    return (
        task in GRADERS
        and bool(sample.text.strip())
        and (task != "vg" or bool(written_boxes(sample.text, spaces=True)))
    )


def _answers(model: ModelAnswers, samples: Sequence[Sample]) -> Sequence[str]:
    if not hasattr(model, "answer"):
        raise KdkitError(
            "KD-ANS-013",
            f"'{model.name}' gives no answers, so the task 'answers' cannot score it",
            fix="models with image and text features are scored by the task 'zero-shot'",
        )
    answers = model.answer(samples)
    if len(answers) != len(samples):
        raise KdkitError(
            "KD-ANS-014",
            f"'{model.name}' gave {len(answers)} answers to {len(samples)} questions",
            fix="correct the plugin of the model: answer() returns one text per sample",
        )
    return answers


def _values(graded: Graded, counts: Array) -> Array:
    """(N, R) -> (R, metrics), clipped to [0, 1] against rounding."""
    columns = [accuracy(outcome, counts) for outcome in graded.outcomes.values()]
    return np.clip(np.stack([*columns, *(metric(counts) for metric in graded.others.values())], axis=1), 0.0, 1.0)


def _around(value: float, bounds: tuple[float, float]) -> tuple[float, float]:
    """Bounds that include the value despite rounding."""
    return min(bounds[0], float(value)), max(bounds[1], float(value))
