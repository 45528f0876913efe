"""Review of the student's answers to training samples: each is scored and, if it is wrong, corrected.

Reviews go to a journal in groups. An interrupted review resumes with the first incomplete group. Groups are fixed
beforehand, because a student's answers may depend on the batch.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.journal import Journal, JournalEntry, SampleKey
from kdkit.core.contracts import EvaluationTask, ModelAnswers, Reporter, Sample, Student, StudentSpec, TaskSpec
from kdkit.core.data.images import open_image
from kdkit.core.distill.pseudo_labels.corrector import REFERENCE, Corrector, with_coordinates
from kdkit.core.evaluation.answers import GivenAnswers
from kdkit.core.evaluation.trust.answers import HEADLINE

if TYPE_CHECKING:
    from kdkit.core.project.project import Project

THRESHOLD = 0.8
"""Of the paper."""
SIMILARITY = "similarity"
"""The outcome that decides, where a task has it: its headline may be a hit or a miss."""
GROUP = 16


@dataclass(frozen=True)
class Rules:
    """What is wrong, and which corrections are right.

    Attributes:
        threshold: answers of a lower score are wrong; in (0, 1].
        accept: the least score of a corrector's text against the reference; None: the threshold.
        options: of the project's evaluation task, which scores them.
    """

    threshold: float = THRESHOLD
    accept: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (("threshold", self.threshold), ("accept", self.least)):
            if not 0 < value <= 1:
                raise KdkitError("KD-LABEL-013", f"{name} is in (0, 1]", where=name)

    @property
    def least(self) -> float:
        return self.threshold if self.accept is None else self.accept


@dataclass(frozen=True)
class Reviewed:
    """One answer of the student.

    Attributes:
        answer: what it said.
        score: in [0, 1]; None where the task cannot score the sample, which is then right.
        text: what it should have said; None where it was right.
        corrector: whose words ``text`` is: ``reference`` or a teacher.
        refused: a corrector's words were not taken, and the reference stands.
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
        """In a corrector's own words."""
        return self.corrector not in (None, REFERENCE)


@dataclass(frozen=True)
class Reviewer:
    """Who answers, who judges, who corrects.

    Attributes:
        view: the student.
        task: its headline, or its outcome ``similarity`` where it has one, is the score.
        corrector: None takes the reference.
        student: what the corrector's texts are tried on.
    """

    view: ModelAnswers
    task: EvaluationTask
    rules: Rules
    corrector: Corrector | None
    student: Student

    def review(self, samples: Sequence[Sample]) -> list[Reviewed]:
        """The student's answers to a group of samples, corrected."""
        answers = dict(zip([s.id for s in samples], self.view.answer(samples), strict=True))
        scores = score(self.task, samples, answers)
        wrong = [sample for sample in samples if scores.get(sample.id, 1.0) < self.rules.threshold]
        told = self._told(wrong, answers)
        ids = {sample.id for sample in wrong}
        return [
            self._corrected(sample, answers[sample.id], scores[sample.id], told.get(sample.id))
            if sample.id in ids
            else Reviewed(answers[sample.id], scores.get(sample.id))
            for sample in samples
        ]

    def _told(self, wrong: Sequence[Sample], answers: Mapping[str, str]) -> dict[str, str]:
        """Those texts of the corrector that keep meaning and coordinates."""
        if self.corrector is None or not wrong:
            return {}
        said = self.corrector.rewrite(wrong, answers)
        told = {sample.id: with_coordinates(said[sample.id], sample.text) or "" for sample in wrong}
        good = score(self.task, wrong, told)
        return {
            sample.id: told[sample.id]
            for sample in wrong
            if told[sample.id]
            and good.get(sample.id, 0.0) >= self.rules.least
            and can_learn(self.student, replace(sample, text=told[sample.id]))
        }

    def _corrected(self, sample: Sample, answer: str, value: float, told: str | None) -> Reviewed:
        if told is not None and self.corrector is not None:
            return Reviewed(answer, value, told, self.corrector.name)
        return Reviewed(answer, value, sample.text, REFERENCE, refused=self.corrector is not None)


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


def read_reviews(paths: Iterable[Path]) -> dict[SampleKey, Reviewed]:
    """Reviews of all these journals."""
    return {key: Reviewed(**value) for path in paths for key, value in Journal(path).read().items()}


def can_learn(student: Student, sample: Sample) -> bool:
    """Whether the student could be taught a sample: its text is not too long, and breaks nothing."""
    try:
        student.prepare(open_image(sample), sample)
    except KdkitError:
        return False
    return True


def correctable(sample: Sample) -> bool:
    """Whether the student is asked about a sample: it has an answer, which is no correction itself."""
    return bool(sample.text) and "correction" not in sample.extra


def scoring_task(project: Project, options: Mapping[str, Any]) -> EvaluationTask:
    """The evaluation task of the project's student, with these options.

    Raises:
        KdkitError: a student that does not answer; an option that the task does not have.
    """
    catalogue = project.catalogue
    family = catalogue.spec(StudentSpec, project.registry.student.family)
    if catalogue.spec(TaskSpec, family.task).reads != "answers":
        raise KdkitError(
            "KD-LABEL-014", "only students that answer can be corrected", fix="dual encoders: 'kdkit evaluate'"
        )
    return cast(EvaluationTask, catalogue.make("task", family.task, **options))


def score(task: EvaluationTask, samples: Sequence[Sample], answers: Mapping[str, str]) -> dict[str, float]:
    """Sample id -> how near its answer is to its text, in [0, 1]; without samples that the task cannot score."""
    found: dict[str, float] = {}
    for scored in task.evaluate(GivenAnswers(answers), samples):
        values = scored.outcomes.get(SIMILARITY, scored.outcomes[HEADLINE])
        found |= zip(scored.ids, np.asarray(values, dtype=np.float64).tolist(), strict=True)
    return found
