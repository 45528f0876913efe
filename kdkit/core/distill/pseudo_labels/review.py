"""Review of the student's answers to training samples: each is scored and, if it is wrong, corrected.

Reviews go to a journal in groups. An interrupted review resumes with the first incomplete group. Groups are fixed
beforehand, because a student's answers may depend on the batch.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.journal import Journal, JournalEntry, SampleKey
from kdkit.core.contracts import EvaluationTask, ModelAnswers, Reporter, Sample, Student, StudentSpec, TaskSpec
from kdkit.core.data.images import open_image
from kdkit.core.distill.pseudo_labels.corrector import REFERENCE, Corrector, with_coordinates
from kdkit.core.evaluation.answers import GivenAnswers
from kdkit.core.evaluation.trust.answers import HEADLINE

if TYPE_CHECKING:
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.project.registry.schema import StudentEntry

THRESHOLD = 0.8
"""Default of ClinKD."""
SIMILARITY = "similarity"
"""Outcome of a task that is used as score in place of the headline, which may be 0 or 1 only."""
GROUP = 16


@dataclass(frozen=True)
class ReviewRules:
    """Which answers are wrong, and which corrections are accepted.

    Attributes:
        threshold: answers with a lower score are wrong; in (0, 1].
        accept: least score of a corrector's text against the reference; None for the threshold.
        options: of the project's evaluation task, which gives the scores.
    """

    threshold: float = THRESHOLD
    accept: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (("threshold", self.threshold), ("accept", self.least)):
            if not 0 < value <= 1:
                raise KdkitError(
                    "KD-LABEL-013", f"{name} is in (0, 1], not {value:g}", where=name, fix=f"--{name} {THRESHOLD}"
                )

    @property
    def least(self) -> float:
        return self.threshold if self.accept is None else self.accept


@dataclass(frozen=True)
class Review:
    """One answer of the student.

    Attributes:
        answer: its text.
        score: in [0, 1]; None if the task cannot score the sample, whose answer then counts as right.
        text: the correction; None for a right answer.
        corrector: the source of ``text``: ``reference`` or a teacher.
        refused: the corrector's text was rejected, so ``text`` is the reference.
    """

    answer: str
    score: float | None
    text: str | None = None
    corrector: str | None = None
    refused: bool = False

    @property
    def wrong(self) -> bool:
        return self.text is not None

    @property
    def rewritten(self) -> bool:
        """Whether ``text`` is a teacher's."""
        return self.corrector not in (None, REFERENCE)


@dataclass(frozen=True)
class Reviewer:
    """Scores a student's answers and corrects wrong ones.

    Attributes:
        answers: of the student.
        task: gives the scores.
        corrector: None for the reference.
        student: must accept a corrector's text.
    """

    answers: ModelAnswers
    task: EvaluationTask
    rules: ReviewRules
    corrector: Corrector | None
    student: Student

    def review(self, samples: Sequence[Sample]) -> list[Review]:
        """Reviews of a group of samples, in their order."""
        answers = dict(zip([s.id for s in samples], self.answers.answer(samples), strict=True))
        scores = score_answers(self.task, samples, answers)
        wrong = [sample for sample in samples if scores.get(sample.id, 1.0) < self.rules.threshold]
        reviews = {sample.id: Review(answers[sample.id], scores.get(sample.id)) for sample in samples}
        corrector = self.corrector
        corrections = self._accepted_corrections(corrector, wrong, answers) if corrector and wrong else {}
        for sample in wrong:
            found, text = reviews[sample.id], corrections.get(sample.id)
            if corrector and text is not None:
                reviews[sample.id] = replace(found, text=text, corrector=corrector.name)
            else:
                refused = corrector is not None
                reviews[sample.id] = replace(found, text=sample.text, corrector=REFERENCE, refused=refused)
        return [reviews[sample.id] for sample in samples]

    def _accepted_corrections(
        self, corrector: Corrector, wrong: Sequence[Sample], answers: Mapping[str, str]
    ) -> dict[str, str]:
        """Texts of the corrector that keep the meaning and the coordinates of the reference, by sample id."""
        raw = corrector.rewrite(wrong, answers)
        texts = {sample.id: with_coordinates(raw[sample.id], sample.text) or "" for sample in wrong}
        scores = score_answers(self.task, wrong, texts)
        return {
            sample.id: text
            for sample in wrong
            if (text := texts[sample.id])
            and scores.get(sample.id, 0.0) >= self.rules.least
            and can_learn(self.student, replace(sample, text=text))
        }


def review(
    reviewer: Reviewer,
    journal: Journal,
    pairs: Sequence[tuple[SampleKey, Sample]],
    known: Container[SampleKey],
    reporter: Reporter,
    label: str,
) -> None:
    """Append the reviews of ``pairs`` to a journal; groups that are wholly ``known`` are skipped.

    Raises:
        KdkitError: an error of answering or correcting; the journal keeps the groups before it.
    """
    for start in range(0, len(pairs), GROUP):
        group = pairs[start : start + GROUP]
        if not all(key in known for key, _ in group):
            found = reviewer.review([sample for _, sample in group])
            journal.append(JournalEntry(key, asdict(one)) for (key, _), one in zip(group, found, strict=True))
        reporter.progress(label, start + len(group), len(pairs))


def read_reviews(paths: Iterable[Path]) -> dict[SampleKey, Review]:
    """Reviews of all these journals."""
    return {key: Review(**value) for path in paths for key, value in Journal(path).read().items()}


def can_learn(student: Student, sample: Sample) -> bool:
    """Whether the student accepts a sample for training."""
    try:
        student.prepare(open_image(sample), sample)
    except KdkitError:
        return False
    return True


def is_correctable(sample: Sample) -> bool:
    """Whether a sample has a reference that is no correction itself."""
    return bool(sample.text) and "correction" not in sample.extra


def make_scoring_task(student: StudentEntry, catalogue: Catalogue, options: Mapping[str, Any]) -> EvaluationTask:
    """The evaluation task of the registry's student, with these options.

    Raises:
        KdkitError: a student that does not answer; an unknown option.
    """
    family = catalogue.spec(StudentSpec, student.family)
    if catalogue.spec(TaskSpec, family.task).reads != "answers":
        raise KdkitError(
            "KD-LABEL-014", "only students that answer can be corrected", fix="evaluate dual encoders: kdkit evaluate"
        )
    return catalogue.make_task(family.task, **options)


def score_answers(task: EvaluationTask, samples: Sequence[Sample], answers: Mapping[str, str]) -> dict[str, float]:
    """Sample id -> score of its answer against its text, in [0, 1]; samples that the task cannot score are left out."""
    found: dict[str, float] = {}
    for scored in task.evaluate(GivenAnswers(answers), samples):
        values = scored.outcomes.get(SIMILARITY, scored.outcomes[HEADLINE])
        found |= zip(scored.ids, np.asarray(values, dtype=np.float64).tolist(), strict=True)
    return found
