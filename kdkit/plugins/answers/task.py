"""The evaluation task ``answers``: texts against references, per domain, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import DomainScore, ModelAnswers, Sample
from kdkit.core.evaluation.metrics import LEVEL, RESAMPLES, SEED, Metric
from kdkit.core.evaluation.sampling import GROUP, Integers
from kdkit.core.evaluation.scoring import Bootstrap, Predicted, RowMetric, Subgroups, score_domain
from kdkit.plugins.answers.agreement import CLOSED, agreement
from kdkit.plugins.answers.boxes.scoring import THRESHOLD, written_boxes
from kdkit.plugins.answers.grading import GRADERS
from kdkit.plugins.answers.likelihood import check_wording, likelihood_metrics
from kdkit.plugins.answers.questions import question_type
from kdkit.plugins.answers.replies import CHOICES, HEADLINE, Reply, Tools
from kdkit.plugins.answers.text.meteor import make_meteor
from kdkit.plugins.answers.text.spice import Spice

Array = np.ndarray[Any, Any]


class Answers:
    """Scores answers per domain by the metrics of the domain's task; ``accuracy`` is its headline, in [0, 1].

    Args:
        meteor: ``lite`` (plain Python, reported as ``meteor_lite`` and ``mbmr_lite``) or ``jar`` (METEOR 1.5).
        corenlp: folder with CoreNLP 3.6.0; empty: SPICE is unavailable.
        overlap: IoU that a box must exceed to be found.
        likelihood: also choose options by their likelihood, of their ``text`` or ``letter``; empty: not.
        resamples, seed, level: of the bootstrap, which draws groups (patients) where they are known, else images with
            their questions.
        subgroups: column -> sample id -> value, for scores of subgroups.

    Raises:
        KdkitError: a configured METEOR or SPICE that cannot run; an unknown ``likelihood``.
    """

    def __init__(
        self,
        *,
        meteor: str = "lite",
        corenlp: str = "",
        overlap: float = THRESHOLD,
        likelihood: str = "",
        resamples: int = RESAMPLES,
        seed: int = SEED,
        level: float = LEVEL,
        subgroups: Subgroups | None = None,
    ) -> None:
        self.tools = Tools(make_meteor(meteor), Spice(Path(corenlp)) if corenlp else None, overlap)
        self.likelihood = check_wording(likelihood)
        self.how = Bootstrap(resamples, seed, level, subgroups or {})

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
        answers = iter(answers_of(model, [sample for group in by_domain.values() for sample in group]))
        return [self._score(d, group, list(islice(answers, len(group))), model) for d, group in by_domain.items()]

    def question_type(self, sample: Sample) -> str:
        """Closed questions with yes or no, other closed ones, those with options, and all others."""
        extra = sample.extra
        if task_of(sample) != "vqa":
            return ""
        return question_type(sample.text, extra.get("answer_type"), choices=bool(extra.get(CHOICES)))

    def grade(self, samples: Sequence[Sample], answers: Sequence[str]) -> Array:
        """(N,) the ``accuracy`` of each answer; all samples are of one task and have a reference that is scored."""
        graded = GRADERS[task_of(samples[0])](_replies(samples, answers), self.tools)
        return graded.outcomes[HEADLINE]

    def is_free_text(self, sample: Sample) -> bool:
        """All answers but boxes and those to closed questions (by ``answer_type``, as no reference is read)."""
        return _kind(sample) not in ("vg", CLOSED)

    def agreement(self, sample: Sample, answers: Sequence[str]) -> Array:
        """See :func:`kdkit.plugins.answers.agreement.agreement`; a sample of an unknown task is one of ``vqa``."""
        return agreement(_kind(sample), [Reply.of(answer, "").answer for answer in answers])

    def _score(
        self, domain: str, samples: Sequence[Sample], answers: Sequence[str], model: ModelAnswers
    ) -> DomainScore:
        tasks = sorted({task_of(sample) for sample in samples})
        if len(tasks) > 1:
            raise KdkitError(
                "KD-ANS-012",
                f"the domain '{domain}' has samples of several tasks: {', '.join(tasks)}",
                where=samples[0].origin,
                fix="a domain is task and modality, such as 'vg/ct'",
            )
        graded = GRADERS[tasks[0]](_replies(samples, answers), self.tools)
        likely = likelihood_metrics(model, samples, self.likelihood) if self.likelihood else {}
        predicted = Predicted(
            samples,
            graded.strata,
            outcomes=dict(graded.outcomes),
            metrics={name: _of_rows(metric, len(samples)) for name, metric in {**graded.others, **likely}.items()},
            units=units_of(samples),
        )
        lacks = self.likelihood and not likely and any(sample.extra.get(CHOICES) for sample in samples)
        notes = (f"{model.name} cannot tell how likely options are: only its answers are known",) if lacks else ()
        return score_domain(domain, predicted, self.how, notes=(*graded.notes, *notes))


def _replies(samples: Sequence[Sample], answers: Sequence[str]) -> list[Reply]:
    return [Reply.of(a, s.text, s.extra) for s, a in zip(samples, answers, strict=True)]


def units_of(samples: Sequence[Sample]) -> Integers:
    """(N,) what the bootstrap draws: the group (patient) of each sample where it has one, else its image, since answers
    to questions about one image are alike."""
    units: dict[tuple[str, str], int] = {}
    keys = [("group", str(s.extra[GROUP])) if GROUP in s.extra else ("image", str(s.image)) for s in samples]
    return np.array([units.setdefault(key, len(units)) for key in keys], dtype=np.int64)


def task_of(sample: Sample) -> str:
    """``extra["task"]``, or the first part of the domain."""
    return str(sample.extra.get("task") or sample.domain.partition("/")[0])


def _kind(sample: Sample) -> str:
    """The task, or :data:`CLOSED`."""
    task = task_of(sample)
    closed = task == "vqa" and str(sample.extra.get("answer_type")).strip().upper() == "CLOSED"
    return CLOSED if closed else task if task in GRADERS else "vqa"


def _scored(sample: Sample) -> bool:
    task = task_of(sample)
    return (
        task in GRADERS
        and bool(sample.text.strip())
        and (task != "vg" or bool(written_boxes(sample.text, spaces=True)))
    )


def answers_of(model: ModelAnswers, samples: Sequence[Sample]) -> Sequence[str]:
    """One text per sample. Raises: KdkitError for a model without answers, or with too few."""
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


def _of_rows(metric: Metric, size: int) -> RowMetric:
    """A function of the counts of all samples as one of chosen samples: the others are drawn 0 times."""

    def values(rows: Array, counts: Array | None) -> Array:
        drawn = np.ones((len(rows), 1)) if counts is None else counts
        every = np.zeros((size, drawn.shape[1]), dtype=drawn.dtype)
        every[rows] = drawn
        return np.clip(metric(every), 0.0, 1.0)  # against rounding

    return values
