"""A sweep at work: what is missing is trained, by one command or by several jobs, and the report is written."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.locks import file_lock
from kdkit.core.base.result import Result, Section, Table, format_size
from kdkit.core.base.system_errors import system_errors
from kdkit.core.contracts import Reporter, Split
from kdkit.core.distill.cost_estimate import TRIAL_STEPS, measure_cost
from kdkit.core.distill.sweep.prepare import COMMAND, PlannedSweep, SweepOptions, plan_sweep
from kdkit.core.distill.trials.trial import KEPT, PlannedTraining, Trial, discard, pending_steps
from kdkit.core.evaluation.scores import to_plain
from kdkit.core.evaluation.sweeps.page import render_sweep
from kdkit.core.evaluation.sweeps.record import SweepFolder, SweepRecord, changed_facts
from kdkit.core.evaluation.sweeps.report import SweepReport, read_report
from kdkit.core.teachers.initial_weights import require_initial_weights, with_initial_weights

if TYPE_CHECKING:
    from kdkit.core.project.project import Project

REPORT, PAGE = "report.json", "report.html"


@dataclass(frozen=True)
class SweepRequest:
    """What to answer, and which part of it.

    Attributes:
        question: a key of :data:`~kdkit.core.distill.sweep.prepare.QUESTIONS`.
        arguments: after the question.
        name: of the folder; by default from question and arguments.
        job: (i, n): only every n-th run, from the i-th; None for all.
    """

    question: str
    arguments: tuple[str, ...] = ()
    name: str | None = None
    job: tuple[int, int] | None = None

    def folder_name(self, split: Split) -> str:
        """A name for the folder; of another split than calibration it ends with that.

        Raises:
            KdkitError: a given name that is none.
        """
        if self.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=-]*", self.name):
            raise KdkitError(
                "KD-PROJ-380",
                f"'{self.name}' cannot name a sweep",
                where="--name",
                fix="use letters, digits, '.', '_', '-'",
            )
        keys = [word.partition("=")[0] for word in self.arguments]
        named = keys if self.question in ("recipe", "held-out", "teachers") else []
        parts = [self.question, *named, *([split] if split != "calibration" else [])]
        return self.name or re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts))[:100]


@dataclass(frozen=True)
class SweepPlan(Result):
    """What a sweep would train.

    Attributes:
        variations: (name, steps, finished runs, runs, why it cannot be trained).
        trainings: number of trainings; ``finished`` of them are evaluated already.
        seconds: of training the others on this machine; 0 if there are none.
        disk: bytes of the run at work, and of what ``--keep`` leaves; ``free`` bytes are free.
    """

    record: SweepRecord
    folder: str
    variations: tuple[tuple[str, int, int, int, str], ...]
    trainings: int
    finished: int
    mine: int
    seconds: float
    disk: int
    free: int

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        names = ("name", "steps", "finished", "runs", "impossible")
        return {
            "name": self.record.name,
            "folder": self.folder,
            "question": self.record.question,
            "split": self.record.split,
            "seeds": list(self.record.seeds),
            "variations": [dict(zip(names, row, strict=True)) for row in self.variations],
            **{key: getattr(self, key) for key in ("trainings", "finished", "mine", "seconds", "disk", "free")},
        }

    def sections(self) -> list[Section]:
        """The variations, then runs, time and disk."""
        rows = [
            (name, steps or "–", f"{done} of {runs}" if not why else "cannot be trained")
            for name, steps, done, runs, why in self.variations
        ]
        whys = [f"{name}: {why}" for name, _, _, _, why in self.variations if why]
        record = self.record
        about = f"Sweep {record.name}, recipe {record.recipe}, {record.seeds_text}"
        table = Table(("variation", "steps", "finished"), rows, "lrr")
        return [f"{about}, scored on the {record.split} split", table, *whys, self.course()]

    def course(self) -> str:
        """Runs, time and disk, in one line."""
        shared = f"{self.trainings} trainings for {sum(row[3] for row in self.variations)} runs"
        if self.finished == self.trainings:
            return f"{shared}, all of them finished"
        done = f", {self.finished} of them finished" if self.finished else ""
        mine = f"; this job has {self.mine} of the others" if self.mine < self.trainings - self.finished else ""
        return (
            f"{shared}{done}{mine}: about {self.seconds:.0f} s of training here (measured on {TRIAL_STEPS} steps; "
            f"evaluations come on top), at most {format_size(self.disk)} on disk ({format_size(self.free)} free)"
        )


def sweep(project: Project, request: SweepRequest, options: SweepOptions, reporter: Reporter) -> SweepReport:
    """Train what is missing of a sweep, or of one job's share, and write the report from what is there.

    Raises:
        KdkitError: see :func:`~kdkit.core.distill.sweep.prepare.plan_sweep`; another sweep or another state of the
            project under the same name; a job that does not exist.
    """
    project = with_initial_weights(project, reporter)
    with closing(_planned(project, request, options, reporter)) as planned:
        folder = SweepFolder(project, planned.record.name)
        _join(folder, planned.record, request)
        mine = _share(planned.trials, request.job)
        _tidy(project, folder, mine)
        pending = [trial for trial in mine if not trial.finished(folder.kept)]
        busy = list[Trial]()
        if pending:
            reporter.say(_cost(project, planned, mine, options).course())
            busy = _finish(project, folder, pending, options, reporter)
        return write_sweep_report(folder, planned.record, len(busy), reporter)


def dry_run_sweep(project: Project, request: SweepRequest, options: SweepOptions, reporter: Reporter) -> SweepPlan:
    """The runs of :func:`sweep` with their cost, measured on a few steps; nothing is trained or written.

    Missing features are extracted, since trust decides what is taught.
    """
    require_initial_weights(project, reporter)
    with closing(_planned(project, request, options, reporter)) as planned:
        known = SweepFolder(project, planned.record.name).read()
        if known is not None:
            _require_same(known, planned.record, SweepFolder(project, planned.record.name), request)
        return _cost(project, planned, _share(planned.trials, request.job), options)


def report_sweep(project: Project, name: str | None, reporter: Reporter) -> SweepReport:
    """The report of a sweep from what is finished; nothing is trained."""
    folder = SweepFolder.find(project, name)
    record = folder.read()
    if record is None:
        raise FileNotFoundError(folder.path)
    return write_sweep_report(folder, record, 0, reporter)


def write_sweep_report(folder: SweepFolder, record: SweepRecord, busy: int, reporter: Reporter) -> SweepReport:
    """Write ``report.json`` and ``report.html`` beside the runs."""
    report = read_report(folder, record, busy)
    with system_errors(str(folder.path)):
        content = json.dumps(to_plain(report.to_json()), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(folder.path / REPORT, (content + "\n").encode())
        write_atomically(folder.path / PAGE, render_sweep(report).encode())
    reporter.say(f"report: {report.folder}/{PAGE}, {report.folder}/{REPORT}")
    return report


def _planned(project: Project, request: SweepRequest, options: SweepOptions, reporter: Reporter) -> PlannedSweep:
    if request.job is not None and not 1 <= request.job[0] <= request.job[1]:
        raise KdkitError(
            "KD-PROJ-381",
            f"there is no job {request.job[0]} of {request.job[1]}",
            where="--job",
            fix=f"jobs are 1/{max(1, request.job[1])} to {max(1, request.job[1])}/{max(1, request.job[1])}",
        )
    return plan_sweep(
        project, request.folder_name(options.split), request.question, request.arguments, options, reporter
    )


def _share(trials: Sequence[Trial], job: tuple[int, int] | None) -> Sequence[Trial]:
    """Every n-th trial, from the i-th: the first seed is finished first in every job."""
    return trials if job is None else trials[job[0] - 1 :: job[1]]


def _join(folder: SweepFolder, record: SweepRecord, request: SweepRequest) -> None:
    """Write the record, or check that it is the one that is there."""
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = folder.path / "sweep.busy"
    with file_lock(lock) as mine:
        known = folder.read()
        if known is not None:
            _require_same(known, record, folder, request)
        if known != record:
            record.save(folder.path)
        if mine:
            lock.unlink(missing_ok=True)


def _require_same(known: SweepRecord, record: SweepRecord, folder: SweepFolder, request: SweepRequest) -> None:
    """Jobs answer one question on one state of the project; a command without a job may ask for more runs.

    Raises:
        KdkitError: the project has changed, or a job's question is another one.
    """
    where = str(folder.path)
    if changed := changed_facts(known.made_from, record.made_from):
        raise KdkitError(
            "KD-PROJ-382",
            f"the project has changed since this sweep began: {'; '.join(changed)}",
            where=where,
            why="its finished runs were made from the former state, and cannot be compared with new ones",
            fix="undo the change, or start another sweep with --name NAME",
            code=ExitCode.FOUND,
        )
    same = replace(known, made_from={}, notes=()) == replace(record, made_from={}, notes=())
    if request.job is not None and not same:
        raise KdkitError(
            "KD-PROJ-383",
            "this job asks for other runs than the sweep of this name",
            where=where,
            why=f"it began with: kdkit sweep {known.question} {' '.join(known.arguments)} (length {known.length:g}, "
            f"{len(known.seeds)} seeds, {known.split} split, precision {known.precision})",
            fix="give all jobs the same arguments, or another --name",
        )


def _finish(
    project: Project, folder: SweepFolder, pending: Sequence[Trial], options: SweepOptions, reporter: Reporter
) -> list[Trial]:
    """Train and evaluate; trials that another process is at are left to it, and returned."""
    busy = list[Trial]()
    for number, trial in enumerate(pending, 1):
        kept = folder.kept  # another sweep may have begun, and finished the run
        with kept.claim(trial.key) as mine:
            if not mine:
                reporter.say(f"{trial.title}, seed {trial.seed}: another process is at it")
                busy.append(trial)
            elif not trial.finished(kept):
                reporter.say(f"run {number} of {len(pending)}: {trial.title}, seed {trial.seed}")
                trial.finish(
                    kept, _run_folder(project, trial), options.trials.accelerator(COMMAND), options.trials, reporter
                )
    return [trial for trial in busy if not trial.finished(folder.kept)]


def _run_folder(project: Project, trial: Trial) -> Path:
    return project.runs / f"sweep-{trial.key[:16]}"


def _tidy(project: Project, folder: SweepFolder, trials: Sequence[Trial]) -> None:
    """Remove what processes left that were killed after their last evaluation."""
    for trial in trials:
        run = _run_folder(project, trial)
        if run.is_dir() and trial.finished(folder.kept):
            with folder.kept.claim(trial.key) as mine:
                if mine and not (run / KEPT).exists():
                    discard(run)


def _cost(project: Project, planned: PlannedSweep, mine: Sequence[Trial], options: SweepOptions) -> SweepPlan:
    folder = SweepFolder(project, planned.record.name)
    kept = folder.kept
    pending = [trial for trial in mine if not trial.finished(kept)]
    seconds, disk, free = 0.0, 0, 0
    first = next((trial.training for trial in pending if isinstance(trial.training, PlannedTraining)), None)
    first = first or next((t.training for t in planned.trials if isinstance(t.training, PlannedTraining)), None)
    if pending and first is not None:
        accelerator = options.trials.accelerator(COMMAND)
        costs = [measure_cost(project.state, stage, accelerator) for stage in first.prepared().stages]
        seconds = sum(cost.seconds for cost in costs) / first.steps * pending_steps(pending, kept)
        disk, free = sum(c.disk for c in costs) * (1 + options.trials.keep * len(pending)), costs[0].free
    return SweepPlan(
        record=planned.record,
        folder=str(folder.path.relative_to(project.root)),
        variations=tuple(
            (one.name, one.steps, sum(map(kept.has, one.runs)), len(one.runs), one.impossible)
            for one in planned.record.variations
        ),
        trainings=len(planned.trials),
        finished=sum(trial.finished(kept) for trial in planned.trials),
        mine=len(pending),
        seconds=seconds,
        disk=disk,
        free=free,
    )
