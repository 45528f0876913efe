"""Reflective correction inside a run: between two parts of it the student answers, and what it got wrong is fed back.

A round (see :class:`~kdkit.core.distill.plan.types.CorrectionSchedule`) is kept in the run's folder, a line per answer,
and that file is the truth: a run that goes on reads it, asks only what is missing, and never asks what was before its
checkpoint.
From a round on, a sample whose latest answer was wrong is in the data twice: as it is, with what the teachers said of
it, and corrected. Where the corrected text is another one, teachers have no weight there: what they said belongs to
other tokens. Each process reviews its share, and reads those of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.journal import Journal
from kdkit.core.contracts import Reporter, Sample, Silent
from kdkit.core.distill.loop.dataloader import DistillBatch, StepSampler
from kdkit.core.distill.loop.sampler import BatchSampler
from kdkit.core.distill.loop.train import interrupts_immediately
from kdkit.core.distill.plan.targets import TeacherTargets
from kdkit.core.distill.plan.types import CorrectionSchedule, Indices, Plan, SamplePool
from kdkit.core.distill.pseudo_labels.corrector import make_corrector
from kdkit.core.distill.pseudo_labels.review import (
    Review,
    Reviewer,
    ReviewRules,
    make_scoring_task,
    read_reviews,
    review,
)
from kdkit.core.evaluation.answers import StudentAnswers

if TYPE_CHECKING:
    from accelerate import Accelerator

    from kdkit.core.data import SampleIndex
    from kdkit.core.distill.model.build import Build
    from kdkit.core.project.project import Project

FOLDER = "corrections"
"""Inside a run's folder: ``round-1/answers-0.jsonl`` and so on, a file for each process."""


class CorrectedDataLoader:
    """The batches of a run that is corrected; fulfils ``train.Batches``.

    Args:
        plan: has ``rounds``.
        whole: the schedule of the run without corrections.
        folder: of the run.
    """

    def __init__(
        self,
        project: Project,
        plan: Plan,
        table: SampleIndex,
        build: Build,
        whole: BatchSampler,
        *,
        accelerator: Accelerator,
        folder: Path,
        reporter: Reporter,
    ) -> None:
        self._project, self._plan, self._table, self._build = project, plan, table, build
        self._whole, self._accelerator = whole, accelerator
        self._folder, self._reporter = folder / FOLDER, reporter
        assert plan.correction is not None
        self._rounds: CorrectionSchedule = plan.correction
        self._corrector = make_corrector(project, plan.correction.corrector, str(accelerator.device), Silent())

    @property
    def pauses(self) -> frozenset[int]:
        return frozenset(self._rounds.steps)

    def batches(self, start: int) -> Iterator[tuple[int, DistillBatch]]:
        """As ``train.Batches``; a round that is not complete is reviewed when the run comes to it.

        Raises:
            KdkitError: a round before ``start`` that is not complete; what answering and correcting raise.
        """
        wrong: dict[int, str] = {}
        for number, (begin, end) in enumerate(pairwise((0, *self._rounds.steps, len(self._whole)))):
            if number:
                self._update(wrong, self._reviewed(number - 1, here=start <= begin))
            if start < end:
                build, sampler = self._part(number, begin, end, wrong)
                yield from build.dataloader(self._plan, sampler, self._accelerator).batches(max(start, begin))

    def made(self) -> Corrections:
        """What the finished run corrected."""
        reviews = [self._read(number) for number in range(len(self._rounds.steps))]
        return Corrections.of(self._rounds, self._table, reviews)

    # ------------------------------------------------------------------------------ the review of a round

    def _reviewed(self, number: int, *, here: bool) -> Mapping[int, Review]:
        """A complete round. ``here``: the student is as it was trained to be at this round, and may be asked."""
        if here:
            self._review(number)
            self._dismiss(last=number + 1 == len(self._rounds.steps))
            self._accelerator.wait_for_everyone()
        found = self._read(number)
        if len(found) < len(self._rounds.chosen(number)):
            shared = "the processes of the run do not see each other's answers: they need a common disk"
            raise KdkitError(
                "KD-DIST-007",
                f"the corrections after step {self._rounds.steps[number]} are not complete",
                where=str(self._round(number)),
                why=shared if here else "the run is further than that already, and the student is another one now",
                fix="" if here else "start again with 'kdkit distill --restart'",
                code=ExitCode.MISSING,
            )
        return found

    def _review(self, number: int) -> None:
        place = self._accelerator
        mine = self._rounds.chosen(number)[place.process_index :: place.num_processes]
        pairs = self._table.keyed(mine)
        known = read_reviews(self._files(number))
        if all(key in known for key, _ in pairs):
            return
        reviewer = self._reviewer()
        path = self._round(number) / f"answers-{place.process_index}.jsonl"
        label = f"correction {number + 1} of {len(self._rounds.steps)}"
        with interrupts_immediately(), place.autocast():
            review(reviewer, Journal(path), pairs, known, self._reporter, label)

    def _dismiss(self, *, last: bool) -> None:
        """Training needs the corrector's place on the device."""
        if self._corrector is not None:
            self._corrector.close() if last else self._corrector.offload()

    def _reviewer(self) -> Reviewer:
        part = self._plan.recipe.correction
        assert part is not None
        student: Any = self._build.task.student
        return Reviewer(
            StudentAnswers("student", student, device=str(self._accelerator.device)),
            make_scoring_task(self._project.registry.student, self._project.catalogue, part.options),
            ReviewRules(part.threshold, part.accept),
            self._corrector,
            student,
        )

    def _read(self, number: int) -> dict[int, Review]:
        found = read_reviews(self._files(number))
        rows = self._rounds.chosen(number).tolist()
        keys = (key for key, _ in self._table.keyed(rows))
        return {row: found[key] for row, key in zip(rows, keys, strict=True) if key in found}

    def _round(self, number: int) -> Path:
        return self._folder / f"round-{number + 1}"

    def _files(self, number: int) -> list[Path]:
        return sorted(self._round(number).glob("answers-*.jsonl"))

    # ------------------------------------------------------------------------------ what follows from it

    @staticmethod
    def _update(wrong: dict[int, str], reviewed: Mapping[int, Review]) -> None:
        """A sample's latest answer counts; one that was not asked about this time keeps its earlier one."""
        for row, found in reviewed.items():
            wrong.pop(row, None)
            if found.text is not None:
                wrong[row] = found.text

    def _part(self, number: int, begin: int, end: int, wrong: Mapping[int, str]) -> tuple[Build, StepSampler]:
        """Steps ``begin`` to ``end``, with the corrected samples among the others."""
        if not wrong:
            return self._build, _Steps(self._whole, 0, end)
        source = np.array(sorted(wrong), dtype=np.int64)
        samples = self._table.samples
        same = np.array([samples[row].text == wrong[row] for row in source])
        added = source[~same]
        first = self._build.inputs.add([replace(samples[row], text=wrong[row]) for row in added.tolist()])
        index = source.copy()
        index[~same] = first + np.arange(len(added))
        schedule = BatchSampler(
            [_with(pool, source, index) for pool in self._plan.pools],
            batch_size=self._plan.batch_size,
            steps=end - begin,
            seed=_seed(self._plan.settings.seed, number),
        )
        longer = tuple(_silent_about(teacher, len(added)) for teacher in self._build.targets)
        domain = np.concatenate([self._build.domain, self._build.domain[added]])
        return replace(self._build, targets=longer, domain=domain), _Steps(schedule, begin, end)


class _Steps:
    """Steps ``begin`` to ``end`` of a run, whose batches a schedule counts from 0."""

    def __init__(self, schedule: BatchSampler, begin: int, end: int) -> None:
        self._schedule, self._begin, self._end = schedule, begin, end

    def __len__(self) -> int:
        return self._end

    def __getitem__(self, step: int) -> Indices:
        return self._schedule[step - self._begin]


def _with(pool: SamplePool, source: Indices, index: Indices) -> SamplePool:
    """The pool with the corrected of its samples beside them: ``source`` are their rows, ascending, ``index`` what is
    shown."""
    place = np.searchsorted(source, pool.indices)
    found = source[np.minimum(place, len(source) - 1)] == pool.indices
    more: Indices = index[place[found]]
    return replace(
        pool,
        indices=np.concatenate([pool.indices, more]),
        domain=np.concatenate([pool.domain, pool.domain[found]]),
    )


def _silent_about(teacher: TeacherTargets, added: int) -> TeacherTargets:
    """A teacher that says nothing about samples that were added: what it said belongs to the original's tokens."""
    return replace(
        teacher,
        rows=np.concatenate([teacher.rows, np.full(added, -1, dtype=np.int64)]),
        weight=np.concatenate([teacher.weight, np.zeros(added, dtype=np.float32)]),
    )


def _seed(seed: int, number: int) -> int:
    """Of the batches after round ``number``."""
    return seed + 1_000_003 * number


@dataclass(frozen=True)
class Corrections:
    """What a run corrected, for people and for the lineage.

    Attributes:
        rows: one per correction, in the order of rounds and samples.
        rounds: one per round, with counts.
    """

    rows: tuple[Mapping[str, Any], ...]
    rounds: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, rounds: CorrectionSchedule, table: SampleIndex, reviews: Sequence[Mapping[int, Review]]) -> Corrections:
        """``reviews``: table row -> review, of each round."""
        told = [(number, row, found) for number, part in enumerate(reviews) for row, found in sorted(part.items())]
        rows = tuple(_row(rounds, number, table.samples[row], found) for number, row, found in told if found.wrong)
        counts = [_counts(list(part.values())) for part in reviews]
        places = [{"step": step, "epoch": rounds.epoch_of(number)} for number, step in enumerate(rounds.steps)]
        return cls(rows, tuple({**place, **count} for place, count in zip(places, counts, strict=True)))


def _row(rounds: CorrectionSchedule, number: int, sample: Sample, found: Review) -> dict[str, Any]:
    return {
        "sample": sample.id,
        "domain": sample.domain,
        "epoch": rounds.epoch_of(number),
        "step": rounds.steps[number],
        "answer": found.answer,
        "score": found.score,
        "corrector": found.corrector,
        "text": found.text,
    }


def _counts(found: Sequence[Review]) -> dict[str, int]:
    return {
        "answered": len(found),
        "unscored": sum(review.score is None for review in found),
        "wrong": sum(review.wrong for review in found),
        "rewritten": sum(review.rewritten for review in found),
        "refused": sum(review.refused for review in found),
    }
