"""All steps of one plan, from its newest checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from torch import nn

from kdkit.core.contracts import Reporter
from kdkit.core.distill.correction.loader import CorrectedDataLoader
from kdkit.core.distill.loop.checkpoint import Checkpoints
from kdkit.core.distill.loop.checkpoint_state import changing_tensors, load_task_tensors
from kdkit.core.distill.loop.sampler import BatchSampler
from kdkit.core.distill.loop.tracking import tracked
from kdkit.core.distill.loop.train import train
from kdkit.core.distill.model.build import build
from kdkit.core.distill.model.interpolation import State, interpolate, save_state
from kdkit.core.distill.model.previous_version import FOLDER
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import Prepared
from kdkit.core.distill.repair.rehearsal import Rehearsal
from kdkit.core.distill.repair.repair import judge_and_repair
from kdkit.core.distill.trained_run import TrainedRun
from kdkit.core.project.training_record import Machine
from kdkit.core.project.versions import Version, load_student

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import Accelerator

    from kdkit.core.project.project import Project


def train_plan(
    project: Project,
    prepared: Prepared,
    options: Options,
    accelerator: Accelerator,
    folder: Path,
    reporter: Reporter,
    *,
    repair: bool = False,
) -> TrainedRun:
    """Build the task and do all steps of the plan, with its rounds of correction if it has any.

    Args:
        folder: of the run's checkpoints; a run with checkpoints there continues.
        repair: judge an increment, and repair it if the guard refuses it.
    """
    plan, inventory, parent = prepared.plan, prepared.inventory, prepared.student.parent
    after, earlier = prepared.after, tuple(stage.plan for stage in prepared.earlier)
    begun = time.monotonic()
    made = build(
        plan, inventory, prepared.builder, scratch=folder / FOLDER, reporter=reporter, device=accelerator.device
    )
    machine = Machine(
        processes=accelerator.num_processes,
        device=str(accelerator.device),
        precision=options.precision,
        building_seconds=round(time.monotonic() - begun, 3),
    )
    increment = plan.recipe.increment
    part = increment.repair if repair and parent is not None else None
    kept = increment.interpolate if plan.increments else 1.0
    start = save_state(made.task) if kept < 1 or part is not None else {}
    sampler = BatchSampler(plan.pools, batch_size=plan.batch_size, steps=plan.settings.steps, seed=plan.settings.seed)
    try:
        corrected = None
        if plan.correction is not None:
            corrected = CorrectedDataLoader(
                project, plan, inventory.index, made, sampler, accelerator=accelerator, folder=folder, reporter=reporter
            )
        names = options.track if accelerator.is_main_process else ()
        with tracked(names, plan, project.reports, folder, reporter) as on_point:
            progress = train(
                made.task,
                corrected or made.dataloader(plan, sampler, accelerator),
                replace(plan.settings, checkpoint_seconds=options.checkpoint_seconds),
                accelerator=accelerator,
                checkpoints=Checkpoints(folder),
                reporter=reporter,
                on_point=on_point,
                sharding=options.sharding,
            )
        if kept < 1:
            own = {name: x for name, x in start.items() if name.startswith("student.")}
            load_task_tensors(made.task, interpolate(own, save_state(made.task), kept))
        corrections = corrected.summarize() if corrected else None
        machine = replace(machine, strategy=progress.strategy)
        run = TrainedRun(
            plan, inventory, parent, made.task, progress, machine, corrections, after=after, earlier=earlier
        )
        if part is None:
            return run
        seconds = options.checkpoint_seconds
        rehearsal = Rehearsal(
            plan, made, inventory.index, accelerator, folder, seconds, reporter, corrected, options.sharding
        )
        if after is not None and parent is not None:
            start = {**start, **_student_tensors(project, parent)}
        with keeping_the_student(reporter):
            return judge_and_repair(project, run, part, start, rehearsal, reporter)
    finally:
        made.inputs.close()


def _student_tensors(project: Project, version: Version) -> State:
    """A version's student as part of the state of a task: a later stage starts from other weights."""
    task = nn.ModuleDict({"student": cast(nn.Module, load_student(version, project.catalogue))})
    return changing_tensors(task)


@contextmanager
def keeping_the_student(reporter: Reporter) -> Iterator[None]:
    """A failure after the last step costs no training."""
    try:
        yield
    except BaseException:
        reporter.say("the trained student is kept: the same command continues with its evaluation")
        raise
