"""Answers of a model for evaluation: stored (a teacher), or generated (the student)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.journal import Journal, JournalEntry
from kdkit.core.base.system_errors import optional_write
from kdkit.core.contracts import Answering, Sample, ScoresAnswers
from kdkit.core.data.images import open_image
from kdkit.core.evaluation.features import evaluating
from kdkit.core.features.extract.answers import BATCH, answers_of, greedy

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.features.store.column import Column


class StoredAnswers:
    """A teacher's answers, stored beside its column; the teacher itself may be gone."""

    def __init__(self, name: str, column: Column, table: SampleIndex) -> None:
        self._name = name
        self._answers = dict(zip(table.ids, answers_of(column.folder, table), strict=True))

    @property
    def name(self) -> str:
        return self._name

    def covered(self, samples: Sequence[Sample]) -> list[Sample]:
        """Samples of the domains in which all samples are answered."""
        lacking = {sample.domain for sample in samples if self._answers.get(sample.id) is None}
        return [sample for sample in samples if sample.domain not in lacking]

    def answer(self, samples: Sequence[Sample]) -> list[str]:
        """One text per sample.

        Raises:
            KdkitError: a sample without an answer.
        """
        found = [self._answers.get(sample.id) for sample in samples]
        absent = [sample.id for sample, answer in zip(samples, found, strict=True) if answer is None]
        if absent:
            raise KdkitError(
                "KD-EVAL-001",
                f"teacher '{self._name}' has not answered {len(absent)} samples (the first is '{absent[0]}')",
                fix=f"run 'kdkit features extract {self._name}'",
            )
        return [answer for answer in found if answer is not None]


class StudentAnswers:
    """A model that answers greedily, in evaluation mode.

    Args:
        name: in the evaluation.
        student: an ``nn.Module`` too; moved to ``device``; its mode is restored.
        progress: called after every batch with its number of samples.
    """

    def __init__(
        self, name: str, student: Answering, *, device: str = "cpu", progress: Callable[[int], None] | None = None
    ) -> None:
        self._name, self._student, self._device, self._progress = name, student, device, progress

    @property
    def name(self) -> str:
        return self._name

    def answer(self, samples: Sequence[Sample]) -> list[str]:
        """One text per sample.

        Raises:
            KdkitError: an unreadable image, or an error of the model.
        """
        found: list[str] = []
        with evaluating(self._student, self._device):
            for start in range(0, len(samples), BATCH):
                part = samples[start : start + BATCH]
                found += greedy(self._student, part)
                if self._progress:
                    self._progress(len(part))
        return found

    def log_likelihoods(self, samples: Sequence[Sample]) -> list[Sequence[float]] | None:
        """``contracts.ModelLikelihoods``.

        Raises:
            KdkitError: an unreadable image, or an error of the model.
        """
        student = self._student
        if not isinstance(student, ScoresAnswers):
            return None
        found: list[Sequence[float]] = []
        with evaluating(student, self._device):
            for start in range(0, len(samples), BATCH):
                part = samples[start : start + BATCH]
                found += student.log_likelihoods([open_image(sample) for sample in part], part)
        return found


class CachedAnswers:
    """The answers of a student, read from a journal where they are there; the model is opened for the others.

    An interrupted evaluation continues after the last batch. People may delete the journal.

    Args:
        name: in the evaluation.
        journal: of this student; sample -> its answer.
        table: index of the samples.
        open_model: called at most once.
    """

    def __init__(
        self, name: str, journal: Journal, table: SampleIndex, open_model: Callable[[], StudentAnswers]
    ) -> None:
        self._name, self._journal, self._open = name, journal, open_model
        self._digests = dict(zip(table.ids, table.digests.tolist(), strict=True))

    @property
    def name(self) -> str:
        return self._name

    def answer(self, samples: Sequence[Sample]) -> list[str]:
        """One text per sample. Raises: as the model's own."""
        keys = [(sample.id, self._digests[sample.id]) for sample in samples]
        known = {key: str(value["answer"]) for key, value in self._journal.read().items()}
        todo = [(key, sample) for key, sample in zip(keys, samples, strict=True) if key not in known]
        for start in range(0, len(todo), BATCH):
            part = todo[start : start + BATCH]
            found = dict(zip((key for key, _ in part), self._model.answer([sample for _, sample in part]), strict=True))
            with optional_write("the cache of the student's answers"):
                self._journal.append(JournalEntry(key, {"answer": text}) for key, text in found.items())
            known |= found
        return [known[key] for key in keys]

    def log_likelihoods(self, samples: Sequence[Sample]) -> list[Sequence[float]] | None:
        """``contracts.ModelLikelihoods``; not cached."""
        return self._model.log_likelihoods(samples)

    @cached_property
    def _model(self) -> StudentAnswers:
        return self._open()


class GivenAnswers:
    """Known answers, by sample id."""

    name = "given"

    def __init__(self, answers: Mapping[str, str]) -> None:
        self._answers = answers

    def answer(self, samples: Sequence[Sample]) -> list[str]:
        return [self._answers[sample.id] for sample in samples]
