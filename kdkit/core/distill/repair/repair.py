"""The end of an increment: judge the trained student, and repair it if it breaks the guard.

A resumed run judges again and makes the same choices; the additional training has its own checkpoints.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kdkit.core.contracts import Reporter
from kdkit.core.distill.judge import Judge, Judgement
from kdkit.core.distill.loop.distributed import broadcast
from kdkit.core.distill.model.interpolation import State
from kdkit.core.distill.plan.types import Plan
from kdkit.core.distill.repair.rehearsal import Rehearsal
from kdkit.core.distill.repair.search import RepairSearch
from kdkit.core.distill.trained_run import TrainedRun
from kdkit.core.project.recipe import RepairPart

if TYPE_CHECKING:
    from kdkit.core.project.project import Project


def judge_and_repair(
    project: Project, run: TrainedRun, part: RepairPart, start: State, rehearsal: Rehearsal, reporter: Reporter
) -> TrainedRun:
    """Leave the best student that the guard promotes in the task of an increment, or else the student as trained.

    The main process judges; the other ranks wait for its decisions, and train with it.

    Args:
        start: state of the task before training.

    Returns:
        The run with the judgement (on the main process), and a record if the student as trained broke the guard.
    """
    judge = Judge(project, run.plan, run.inventory, run.parent, reporter)
    judgement = judge.judge(run.task.student) if rehearsal.accelerator.is_main_process else None
    search = None
    if judgement is not None and not judgement.passed:
        search = _search(run, judge, judgement, part, start, reporter)
    lost = broadcast(search.lost() if search and part.rehearse and not search.enough else ())
    steps = rehearsal.train(lost, part.rehearse) if lost else 0
    if search is None:
        return replace(run, judgement=judgement)
    if steps:
        search.add(judge.judge(run.task.student), rehearsed=steps)
    judgement, record = search.finish(lost if steps else ())
    reporter.say(record.describe(run.plan.parent))
    return replace(run, judgement=judgement, repair=record)


def _search(
    run: TrainedRun, judge: Judge, judgement: Judgement, part: RepairPart, start: State, reporter: Reporter
) -> RepairSearch:
    """The student as trained, and weights between the parent's and its own."""
    parent = str(run.plan.parent)
    reporter.say(f"the student breaks the guard: trying weights between those of {parent} and its own")
    fresh = count_fresh(run.plan, run.inventory.index.domains)
    search = RepairSearch(
        run.task, judge, start=start, weights=part.interpolate, fresh=fresh, parent=parent, reporter=reporter
    )
    search.add(judgement)
    return search


def count_fresh(plan: Plan, domains: tuple[str, ...]) -> dict[str, int]:
    """Domain -> number of fresh samples."""
    numbers, counts = np.unique(plan.pools[-1].domain, return_counts=True)
    return {domains[number]: int(count) for number, count in zip(numbers, counts, strict=True)}
