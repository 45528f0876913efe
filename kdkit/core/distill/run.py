"""``kdkit distill``, for notebooks and the command line alike."""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.distill.correction.schedule import with_rounds
from kdkit.core.distill.loop.accelerator import accelerate, part
from kdkit.core.distill.loop.sampler import BatchSchedule
from kdkit.core.distill.plan.inventory import Survey, survey
from kdkit.core.distill.plan.plan import Plan, make_plan
from kdkit.core.project.lineage import Machine
from kdkit.core.project.recipe import load_recipe
from kdkit.core.project.registry.pins import pin_names
from kdkit.core.project.versions import Version, Versions, load_student

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import Accelerator

    from kdkit.core.distill.correction.loader import CorrectedFeed, Corrections
    from kdkit.core.distill.loop.checkpoint import Progress
    from kdkit.core.distill.loop.dataloader import Feed, Schedule
    from kdkit.core.distill.loop.sampler import Indices
    from kdkit.core.distill.model.build import Build
    from kdkit.core.distill.promotion import Outcome
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class Options:
    """How to run; none of it changes the result, except the seed, the recipe and, in its rounding, the precision.

    Attributes:
        incremental: start from the current version and teach what is new.
        recipe: name or path; None for the registry's.
        restart: forget a run of the same plan that was interrupted.
        precision: one of :data:`~kdkit.core.distill.loop.accelerator.PRECISIONS`.
        cpu: stay on the CPU even where there is a GPU.
        checkpoint_seconds: time between checkpoints.
    """

    incremental: bool = False
    recipe: str | None = None
    seed: int = 0
    restart: bool = False
    precision: str = "no"
    cpu: bool = False
    checkpoint_seconds: float = 60.0


@dataclass(frozen=True)
class Prepared:
    """A plan and what it was made from."""

    plan: Plan
    survey: Survey
    parent: Version | None


def prepare(project: Project, options: Options, reporter: Reporter, device: str = "cpu") -> Prepared:
    """Extract what is missing, measure trust, make the plan. Trains nothing.

    Raises:
        KdkitError: ``--incremental`` without a version or with nothing new; and whatever is wrong with the
            registry, the data or a teacher.
    """
    registry = project.registry
    recipe = load_recipe(options.recipe or registry.recipe, project.catalogue, project.root)
    recipe = recipe.with_optimizer(registry.optimizer)
    parent = Versions(project).current() if options.incremental else None
    if options.incremental and parent is None:
        raise KdkitError(
            "KD-DIST-037",
            "--incremental needs a version to start from, and there is none",
            where=str(project.versions),
            fix="run 'kdkit distill' first; it makes v1",
            code=ExitCode.USAGE,
        )
    current = Versions(project).current()
    if parent is None and current is not None:
        reporter.warn(
            f"this makes a new student from scratch; it is not compared with {current.name} ('kdkit rollback "
            f"{current.name}' goes back). --incremental would continue {current.name}"
        )
    found = survey(project, recipe, parent=parent, device=device, reporter=reporter)
    student = registry.student.model_dump(mode="json")
    plan = make_plan(recipe, found, parent, student, seed=options.seed)
    plan = with_rounds(project, plan, found.table, reporter)
    if parent is not None and plan.unguarded:
        _warn_of_unguarded(plan, parent, reporter)
    return Prepared(plan, found, parent)


def _warn_of_unguarded(plan: Plan, parent: Version, reporter: Reporter) -> None:
    """Say which domains of ``parent`` nobody teaches any more, and what is done about it."""
    here = [domain for domain in plan.unguarded if domain in plan.uncovered]
    absent = [domain for domain in plan.unguarded if domain not in plan.uncovered]
    advice = ""
    if not plan.previous.weight:
        given = bool(plan.recipe.increment.without_replay.weight)
        how = "what the recipe has as 'without_replay'" if given else "{weight: 1.0}"
        advice = f"set 'increment.previous' of the recipe to {how}, and the previous version speaks for them"
    if here and advice:
        reporter.warn(
            f"{parent.name} knows {', '.join(here)}, where no teacher may teach any more, and will forget: {advice}"
        )
    if absent:
        reporter.warn(
            f"{parent.name} knows {', '.join(absent)}, of which there are no training samples here; what it forgets of "
            "that can only be measured on labeled calibration samples; "
            + (advice or "the previous version speaks for itself on the samples that are here, which protects in part")
        )


def distill(project: Project, options: Options, *, reporter: Reporter | None = None) -> Outcome | None:
    """Make the first version, or an increment; continue an interrupted run of the same plan.

    Under ``torchrun`` or ``accelerate launch`` every process calls this; the main one extracts, evaluates and
    writes, and only it returns an outcome.

    Raises:
        KdkitError: see :func:`prepare` and :func:`kdkit.core.distill.loop.train.train`.
    """
    accelerator = accelerate(options.precision, cpu=options.cpu)
    talk = reporter if reporter is not None and accelerator.is_main_process else Silent()
    with accelerator.main_process_first():
        prepared = prepare(project, options, talk, str(accelerator.device))
    return train_and_finish(project, prepared, options, accelerator, talk)


def train_and_finish(
    project: Project, prepared: Prepared, options: Options, accelerator: Accelerator, reporter: Reporter
) -> Outcome | None:
    """The second half of :func:`distill`, from a plan to a version."""
    from kdkit.core.distill.model.build import build
    from kdkit.core.distill.model.previous_version import forget
    from kdkit.core.distill.promotion import finish, interpolate

    plan, parent = prepared.plan, prepared.parent
    run_folder = project.runs / f"{plan.digest[:16]}-{options.precision}"
    if options.restart and accelerator.is_main_process:
        shutil.rmtree(run_folder, ignore_errors=True)
    if accelerator.is_main_process:
        pin_names(project, options.recipe)
    accelerator.wait_for_everyone()
    begun = time.monotonic()
    made = build(project, plan, prepared.survey, parent, reporter, accelerator.device)
    machine = _machine(accelerator, options, time.monotonic() - begun)
    try:
        progress, corrections = _train(project, prepared, made, options, accelerator, run_folder, reporter)
    finally:
        made.inputs.close()
        prepared.survey.close()
        if accelerator.is_main_process:
            forget(project)
    part(accelerator)
    if not accelerator.is_main_process:
        return None
    if parent is not None and plan.recipe.increment.interpolate < 1:
        before: Any = load_student(parent, project.catalogue)
        interpolate(made.task.student, before, plan.recipe.increment.interpolate)
    outcome = finish(
        project,
        plan,
        prepared.survey,
        made.task,
        parent,
        progress,
        machine=machine,
        corrections=corrections,
        reporter=reporter,
    )
    shutil.rmtree(run_folder, ignore_errors=True)
    return outcome


def _train(
    project: Project,
    prepared: Prepared,
    made: Build,
    options: Options,
    accelerator: Accelerator,
    folder: Path,
    reporter: Reporter,
) -> tuple[Progress, Corrections | None]:
    """The steps of the plan, with its rounds of correction if it has any."""
    from kdkit.core.distill.loop.checkpoint import Checkpoints
    from kdkit.core.distill.loop.train import train

    plan, settings = prepared.plan, prepared.plan.settings
    schedule = BatchSchedule(plan.pools, batch_size=plan.batch_size, steps=settings.steps, seed=settings.seed)
    corrected = corrected_feed(project, prepared, made, accelerator, schedule, folder, reporter)
    progress = train(
        made.task,
        corrected or make_feed(prepared, made, accelerator, schedule),
        dataclasses.replace(settings, checkpoint_seconds=options.checkpoint_seconds),
        accelerator=accelerator,
        checkpoints=Checkpoints(folder),
        reporter=reporter,
    )
    return progress, corrected.made() if corrected else None


def _machine(accelerator: Accelerator, options: Options, building: float) -> Machine:
    """For the lineage; ``building`` in seconds."""
    device = str(accelerator.device)
    return Machine(accelerator.num_processes, device, options.precision, round(building, 3))


def corrected_feed(
    project: Project,
    prepared: Prepared,
    made: Build,
    accelerator: Accelerator,
    schedule: BatchSchedule,
    folder: Path,
    reporter: Reporter,
) -> CorrectedFeed | None:
    """The batches of a run whose recipe corrects the student meanwhile; None for any other."""
    from kdkit.core.distill.correction.loader import CorrectedFeed, Part

    def feed_of(part: Part) -> Feed:
        taught = dataclasses.replace(made, teachings=part.teachings)
        return make_feed(prepared, taught, accelerator, part.schedule, part.domain)

    plan, table = prepared.plan, prepared.survey.table
    if plan.rounds is None:
        return None
    return CorrectedFeed(
        project,
        plan,
        table,
        made,
        schedule,
        feed_of,
        accelerator=accelerator,
        folder=folder,
        reporter=reporter,
    )


def make_feed(
    prepared: Prepared, made: Build, accelerator: Accelerator, schedule: Schedule, domain: Indices | None = None
) -> Feed:
    """The batches of ``schedule`` for this process.

    Args:
        domain: of every sample that the schedule may name; None for those of the table.

    Raises:
        KdkitError: when a batch cannot be shared evenly by the processes.
    """
    from kdkit.core.distill.loop.dataloader import Feed

    plan = prepared.plan
    if plan.batch_size % accelerator.num_processes:
        raise KdkitError(
            "KD-DIST-038",
            f"a batch of {plan.batch_size} cannot be shared by {accelerator.num_processes} processes",
            fix="choose optimizer.batch_size in the recipe as a multiple of the number of processes",
        )
    return Feed(
        schedule,
        made.inputs,
        made.teachings,
        prepared.survey.table.domain_index if domain is None else domain,
        one_teacher=plan.recipe.teachers_per_sample == "one",
        seed=plan.settings.seed,
        own=made.task.own,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
