"""Reflective correction inside a run: the student answers between two parts of it, and its wrong answers are corrected.

Each round (see :class:`~kdkit.core.distill.plan.types.CorrectionSchedule`) has journals in the run's folder, one per
process. A resumed run reads them, reviews only what is missing, and never repeats a round before its checkpoint.

After a round, a sample with a wrong latest answer is in the data twice: unchanged, with the teachers' signals, and
corrected. If the corrected text differs, teachers have weight 0 there, because their signals belong to other tokens.
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
from kdkit.core.distill.loop.interruption import interrupts_immediately
from kdkit.core.distill.loop.sampler import BatchSampler
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
from kdkit.core.project.lineage import CorrectionRound

if TYPE_CHECKING:
    from accelerate import Accelerator

    from kdkit.core.data import SampleIndex
    from kdkit.core.distill.model.build import Build
    from kdkit.core.project.project import Project

FOLDER = "corrections"
"""Folder of a run, with ``round-1/answers-0.jsonl`` and so on: a journal per round and process."""


class CorrectedDataLoader:
    """The batches of a run with corrections; implements ``train.Batches``.

    Args:
        plan: with a ``correction``.
        sampler: of the run without corrections.
        folder: of the run.
    """

    def __init__(
        self,
        project: Project,
        plan: Plan,
        index: SampleIndex,
        build: Build,
        sampler: BatchSampler,
        *,
        accelerator: Accelerator,
        folder: Path,
        reporter: Reporter,
    ) -> None:
        self._project, self._plan, self._index, self._build = project, plan, index, build
        self._sampler, self._accelerator = sampler, accelerator
        self._folder, self._reporter = folder / FOLDER, reporter
        assert plan.correction is not None
        self._schedule: CorrectionSchedule = plan.correction
        self._corrector = make_corrector(project, plan.correction.corrector, str(accelerator.device), Silent())

    @property
    def pauses(self) -> frozenset[int]:
        return frozenset(self._schedule.steps)

    def batches(self, start: int) -> Iterator[tuple[int, DistillBatch]]:
        """As ``train.Batches``. An incomplete round is reviewed when the run reaches it.

        Raises:
            KdkitError: an incomplete round before ``start``; errors of answering and correcting.
        """
        corrections: dict[int, str] = {}
        for number, (begin, end) in enumerate(pairwise((0, *self._schedule.steps, len(self._sampler)))):
            if number:
                reviews = self._complete_round(number - 1, reached=start <= begin)
                update_corrections(corrections, reviews)
            if start < end:
                build, sampler = self._part(number, begin, end, corrections)
                yield from build.dataloader(self._plan, sampler, self._accelerator).batches(max(start, begin))

    def summarize(self) -> Corrections:
        """The corrections of a finished run."""
        reviews = [self._read_round(number) for number in range(len(self._schedule.steps))]
        return Corrections.of(self._schedule, self._index, reviews)

    def add_latest_corrections(self, pools: Sequence[SamplePool]) -> tuple[Build, tuple[SamplePool, ...]]:
        """What further training of a finished run learns from: ``pools``, with the corrected samples of the last
        round added as the run itself added them."""
        corrections: dict[int, str] = {}
        for number in range(len(self._schedule.steps)):
            update_corrections(corrections, self._read_round(number))
        return self._add_corrections(pools, corrections)

    def _complete_round(self, number: int, *, reached: bool) -> Mapping[int, Review]:
        """Reviews of a round by row. ``reached``: the student is in the state of this round and can still answer."""
        if reached:
            self._review_own_share(number)
            if self._corrector is not None:  # training needs its memory
                last = number + 1 == len(self._schedule.steps)
                self._corrector.close() if last else self._corrector.offload()
            self._accelerator.wait_for_everyone()
        found = self._read_round(number)
        if len(found) < len(self._schedule.chosen(number)):
            raise KdkitError(
                "KD-DIST-007",
                f"the corrections after step {self._schedule.steps[number]} are not complete",
                where=str(self._folder / f"round-{number + 1}"),
                why="the processes of the run do not share this folder"
                if reached
                else "the run has passed this step, so the student has changed",
                fix="put the project on a disk that all processes share" if reached else "kdkit distill --restart",
                code=ExitCode.MISSING,
            )
        return found

    def _review_own_share(self, number: int) -> None:
        """Review this process's share of a round, unless it is complete."""
        here, part = self._accelerator, self._plan.recipe.correction
        pairs = self._index.keyed(self._schedule.chosen(number)[here.process_index :: here.num_processes])
        known = read_reviews(self._journals(number))
        if all(key in known for key, _ in pairs):
            return
        assert part is not None
        student: Any = self._build.task.student
        reviewer = Reviewer(
            StudentAnswers("student", student, device=str(here.device)),
            make_scoring_task(self._project.registry.student, self._project.catalogue, part.options),
            ReviewRules(part.threshold, part.accept),
            self._corrector,
            student,
        )
        journal = Journal(self._folder / f"round-{number + 1}" / f"answers-{here.process_index}.jsonl")
        label = f"correction {number + 1} of {len(self._schedule.steps)}"
        with interrupts_immediately(), here.autocast():
            review(reviewer, journal, pairs, known, self._reporter, label)

    def _read_round(self, number: int) -> dict[int, Review]:
        found, rows = read_reviews(self._journals(number)), self._schedule.chosen(number).tolist()
        keys = (key for key, _ in self._index.keyed(rows))
        return {row: found[key] for row, key in zip(rows, keys, strict=True) if key in found}

    def _journals(self, number: int) -> list[Path]:
        return sorted((self._folder / f"round-{number + 1}").glob("answers-*.jsonl"))

    def _part(self, number: int, begin: int, end: int, corrections: Mapping[int, str]) -> tuple[Build, StepSampler]:
        """Steps ``begin`` to ``end``, with corrected samples added."""
        if not corrections:
            return self._build, _Steps(self._sampler, 0, end)
        build, pools = self._add_corrections(self._plan.pools, corrections)
        seed = self._plan.settings.seed + 1_000_003 * number
        sampler = BatchSampler(pools, batch_size=self._plan.batch_size, steps=end - begin, seed=seed)
        return build, _Steps(sampler, begin, end)

    def _add_corrections(
        self, pools: Sequence[SamplePool], corrections: Mapping[int, str]
    ) -> tuple[Build, tuple[SamplePool, ...]]:
        if not corrections:
            return self._build, tuple(pools)
        source = np.array(sorted(corrections), dtype=np.int64)
        samples = self._index.samples
        same = np.array([self._index.texts[row] == corrections[row] for row in source])
        added = source[~same]
        first = self._build.inputs.add([replace(samples[row], text=corrections[row]) for row in added.tolist()])
        corrected = source.copy()
        corrected[~same] = first + np.arange(len(added))
        targets = tuple(_without_signals_for(len(added), teacher) for teacher in self._build.targets)
        domain = np.concatenate([self._build.domain, self._build.domain[added]])
        captions = self._build.captions.with_added(len(added))
        build = replace(self._build, targets=targets, domain=domain, captions=captions)
        return build, tuple(_with_corrected(pool, source, corrected) for pool in pools)


def update_corrections(corrections: dict[int, str], reviews: Mapping[int, Review]) -> None:
    """Row -> correction of the latest answer; a sample that is not in ``reviews`` keeps its earlier correction."""
    for row, found in reviews.items():
        corrections.pop(row, None)
        if found.text is not None:
            corrections[row] = found.text


class _Steps:
    """Steps ``begin`` to ``end`` of a run, from a sampler that counts from 0."""

    def __init__(self, sampler: BatchSampler, begin: int, end: int) -> None:
        self._sampler, self._begin, self._end = sampler, begin, end

    def __len__(self) -> int:
        return self._end

    def __getitem__(self, step: int) -> Indices:
        return self._sampler[step - self._begin]


def _with_corrected(pool: SamplePool, source: Indices, corrected: Indices) -> SamplePool:
    """The pool with additional indices: ``corrected[i]`` for each of its indices that is ``source[i]`` (ascending)."""
    place = np.searchsorted(source, pool.indices)
    found = source[np.minimum(place, len(source) - 1)] == pool.indices
    more: Indices = corrected[place[found]]
    image = None if pool.image is None else np.append(pool.image, pool.image.max() + 1 + np.arange(len(more)))
    return replace(
        pool,
        indices=np.concatenate([pool.indices, more]),
        domain=np.concatenate([pool.domain, pool.domain[found]]),
        group=None if pool.group is None else np.concatenate([pool.group, pool.group[found]]),
        image=image,
    )


def _without_signals_for(added: int, teacher: TeacherTargets) -> TeacherTargets:
    """The teacher's targets, extended by ``added`` samples with weight 0."""
    return replace(
        teacher,
        rows=np.concatenate([teacher.rows, np.full(added, -1, dtype=np.int64)]),
        weight=np.concatenate([teacher.weight, np.zeros(added, dtype=np.float32)]),
    )


@dataclass(frozen=True)
class Corrections:
    """The corrections of a run.

    Attributes:
        rows: JSON, one per correction, in the order of rounds and samples.
        rounds: counts.
    """

    rows: tuple[Mapping[str, Any], ...]
    rounds: tuple[CorrectionRound, ...]

    @classmethod
    def of(
        cls, schedule: CorrectionSchedule, index: SampleIndex, reviews: Sequence[Mapping[int, Review]]
    ) -> Corrections:
        """From the reviews of each round, by row."""
        rows, rounds = list[Mapping[str, Any]](), list[CorrectionRound]()
        for number, (step, found) in enumerate(zip(schedule.steps, reviews, strict=True)):
            epoch = schedule.epoch_of(number)
            wrong = [(index.samples[row], one) for row, one in sorted(found.items()) if one.wrong]
            rows += (_row(sample, epoch, step, one) for sample, one in wrong)
            rounds.append(
                CorrectionRound(
                    step=step,
                    epoch=epoch,
                    answered=len(found),
                    unscored=sum(one.score is None for one in found.values()),
                    wrong=len(wrong),
                    rewritten=sum(one.rewritten for one in found.values()),
                    refused=sum(one.refused for one in found.values()),
                )
            )
        return cls(tuple(rows), tuple(rounds))


def _row(sample: Sample, epoch: float, step: int, found: Review) -> dict[str, Any]:
    return {
        "sample": sample.id,
        "domain": sample.domain,
        "epoch": epoch,
        "step": step,
        "answer": found.answer,
        "score": found.score,
        "corrector": found.corrector,
        "text": found.text,
    }
