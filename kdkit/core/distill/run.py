"""``kdkit distill`` from a project to a version, for the command line and for Python."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Reporter, Silent, Split, StudentSpec, TaskSpec
from kdkit.core.data import SampleIndex, load_index
from kdkit.core.distill.correction.loader import CorrectedDataLoader
from kdkit.core.distill.correction.schedule import add_correction
from kdkit.core.distill.guard_tasks import GuardTasks
from kdkit.core.distill.loop.accelerator import end_process_group, make_accelerator
from kdkit.core.distill.loop.checkpoint import Checkpoints, load_task_tensors
from kdkit.core.distill.loop.distributed import peer_errors, require_same_plan
from kdkit.core.distill.loop.sampler import BatchSampler
from kdkit.core.distill.loop.tracking import require_trackers, tracked
from kdkit.core.distill.loop.train import train
from kdkit.core.distill.model.build import build
from kdkit.core.distill.model.interpolation import interpolate, save_state
from kdkit.core.distill.model.previous_version import FOLDER
from kdkit.core.distill.model.student import StudentBuilder
from kdkit.core.distill.on_policy.plan import add_on_policy, require_on_policy
from kdkit.core.distill.plan.checks import idle_losses, require_same_tokens, require_teachable, token_losses
from kdkit.core.distill.plan.compatibility import (
    require_compatible,
    require_needed_signals,
    require_previous,
    require_protection,
)
from kdkit.core.distill.plan.gaps import warn_of_gaps
from kdkit.core.distill.plan.inventory import TeachingInventory, domain_limits, take_inventory
from kdkit.core.distill.plan.loss_signals import with_skipping_losses
from kdkit.core.distill.plan.plan import make_plan
from kdkit.core.distill.plan.types import Plan
from kdkit.core.distill.promotion import Outcome, TrainedRun, judge_again, promote
from kdkit.core.distill.repair.rehearsal import Rehearsal
from kdkit.core.distill.repair.repair import judge_and_repair
from kdkit.core.evaluation.evaluator import make_evaluator
from kdkit.core.project.lineage import Machine
from kdkit.core.project.recipe import Recipe, load_recipe
from kdkit.core.project.registry.pins import pin_names
from kdkit.core.project.versions import Version, Versions
from kdkit.core.teachers.initial_weights import initial_digests, initial_lines, with_initial_weights

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import Accelerator

    from kdkit.core.project.project import Project
    from kdkit.core.project.registry.schema import Registry
    from kdkit.core.teachers import OpenTeacher


@dataclass(frozen=True)
class Options:
    """How to run. Only seed, recipe and (in its rounding) precision change the result.

    Attributes:
        incremental: start from the current version and teach what is new.
        recipe: name or path; None for the registry's.
        restart: discard an interrupted run of the same plan.
        precision: one of :data:`~kdkit.core.distill.loop.accelerator.PRECISIONS`.
        cpu: use the CPU even if there is a GPU.
        checkpoint_seconds: time between checkpoints.
        track: trackers that receive the loss curve, see :mod:`kdkit.core.distill.loop.tracking`.
    """

    incremental: bool = False
    recipe: str | None = None
    seed: int = 0
    restart: bool = False
    precision: str = "no"
    cpu: bool = False
    checkpoint_seconds: float = 60.0
    track: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """A plan, and what it was made from.

    Attributes:
        student: builds the run's student, once; knows the version that an increment starts from.
        finished: the version that this plan has made already, if any.
    """

    plan: Plan
    inventory: TeachingInventory
    student: StudentBuilder
    finished: Version | None = None


def distill(project: Project, options: Options, *, reporter: Reporter | None = None) -> Outcome | None:
    """Make the first version, or an increment; continue an interrupted run of the same plan.

    A plan that has made a version already makes no second one, unless ``options.restart`` is set.

    With ``torchrun`` or ``accelerate launch`` every process calls this. The main process extracts, evaluates and
    writes, and only there the result is not None.

    Raises:
        KdkitError: see :func:`prepare` and :func:`kdkit.core.distill.loop.train.train`.
    """
    require_trackers(options.track)
    accelerator = make_accelerator(options.precision, cpu=options.cpu)
    reporter = reporter if reporter is not None and accelerator.is_main_process else Silent()
    with peer_errors():
        with accelerator.main_process_first():
            if not options.incremental:
                project = with_initial_weights(project, reporter)
            prepared = prepare(project, options, reporter, str(accelerator.device))
        require_same_plan(f"{prepared.plan.digest} {prepared.plan.finished}")
        return train_and_promote(project, prepared, options, accelerator, reporter)


def prepare(project: Project, options: Options, reporter: Reporter, device: str = "cpu") -> Prepared:
    """Extract what is missing, measure trust and make the plan, without training.

    Raises:
        KdkitError: ``--incremental`` without a version or with nothing new; errors of registry, data or teachers.
    """
    registry, catalogue = project.registry, project.catalogue
    recipe = load_recipe(options.recipe or registry.recipe, catalogue, project.root).changed_by(registry)
    versions = Versions(project)
    parent = _parent(versions, incremental=options.incremental)
    if parent is None:
        for line in initial_lines(project):
            reporter.say(line)
    student = StudentBuilder.of(project, parent, options.seed)
    index = load_index(project, reporter)
    inventory = checked_inventory(project, recipe, student, index, reporter, device)
    measurable = measurable_domains(project, inventory)

    def plan_from(start: Version | None) -> Plan:
        made_from = registry.student.model_dump(mode="json")
        if start is None and (digests := initial_digests(project)):
            made_from["initial_weights"] = digests
        plan = make_plan(recipe, inventory, start, made_from, seed=options.seed)
        trained = {index.domains[d] for pool in plan.pools for d in np.unique(pool.domain)}
        plan = replace(
            plan,
            domains_not_judged=tuple(sorted(trained - measurable)),
            idle_losses=idle_losses(recipe, catalogue, plan.batch_size),
            teachers=with_skipping_losses(plan.teachers, inventory.columns, recipe, catalogue),
        )
        plan = add_on_policy(recipe, plan, inventory)
        return add_correction(project, plan, index, reporter)

    if parent is not None and not options.restart:
        repeated = _repeated(versions, parent, plan_from, options.precision)
        if repeated is not None:
            start, plan = repeated
            plan = replace(plan, finished=parent.name)
            return Prepared(plan, inventory, StudentBuilder.of(project, start, options.seed), parent)
    plan = plan_from(parent)
    finished = None if options.restart else versions.made_by(plan.digest, options.precision)
    if finished is None:
        require_previous(plan.previous, student)
        warn_of_gaps(plan, parent, versions, reporter)
    else:
        plan = replace(plan, finished=finished.name)
    return Prepared(plan, inventory, student, finished)


def checked_inventory(
    project: Project,
    recipe: Recipe,
    student: StudentBuilder,
    index: SampleIndex,
    reporter: Reporter,
    device: str,
    before: Callable[[], object] | None = None,
) -> TeachingInventory:
    """The inventory of a run, after checks of what recipe, teachers and student can do together.

    Args:
        before: called before an extraction.

    Raises:
        KdkitError: see :func:`~kdkit.core.distill.plan.inventory.take_inventory`; what does not fit.
    """
    registry, lock, compared = project.registry, project.lock, list[str]()

    def compare() -> None:
        locked = {name: lock.teachers[name] for name in registry.teachers if name in lock.teachers}
        train = index.samples.take(index.select(split="train"))
        require_protection(recipe, student, index)
        require_needed_signals(recipe, project.catalogue, locked)
        require_on_policy(recipe, project.catalogue, registry, locked)
        require_compatible(recipe, student, locked, train, domain_limits(registry), reporter)
        compared.extend(locked)

    def before_extraction(teachers: Sequence[OpenTeacher]) -> None:
        _check_answers(registry, recipe, student, index, teachers, reporter)
        compare()
        if before is not None:
            before()

    inventory = take_inventory(project, recipe, index, before_extraction, device=device, reporter=reporter)
    if not compared:  # nothing was extracted
        compare()
    return inventory


def measurable_domains(project: Project, inventory: TeachingInventory, split: Split = "calibration") -> set[str]:
    """Domains that a split can measure."""
    evaluator = make_evaluator(project.registry, project.catalogue, inventory.index)
    return evaluator.measurable(np.intersect1d(evaluator.rows(split), inventory.rows(split)))


def _repeated(
    versions: Versions, current: Version, plan_from: Callable[[Version | None], Plan], precision: str
) -> tuple[Version, Plan] | None:
    """The parent of ``current`` and the plan, if the same increment would be planned from there again.

    Then there is nothing new since ``current``: the command repeats the one that made it.
    """
    with suppress(KdkitError):  # damaged ancestors, or nothing to plan there
        before = versions.ancestry(current)[-2:-1]
        plan = plan_from(before[0]) if before else None
        training = current.lineage.training
        if plan and (plan.digest, precision) == (training.digest, training.machine.precision):
            return before[0], plan
    return None


def _parent(versions: Versions, *, incremental: bool) -> Version | None:
    current = versions.current()
    if incremental and current is None:
        raise KdkitError(
            "KD-DIST-037",
            "--incremental needs a version to start from, and there is none",
            where=str(versions.root),
            fix="run 'kdkit distill' first; it makes v1",
            code=ExitCode.USAGE,
        )
    return current if incremental else None


def _check_answers(
    registry: Registry,
    recipe: Recipe,
    student: StudentBuilder,
    index: SampleIndex,
    teachers: Sequence[OpenTeacher],
    reporter: Reporter,
) -> None:
    """Check the training answers against a generating student and its teachers, before these compute signals."""
    catalogue = student.catalogue
    family = catalogue.spec(StudentSpec, registry.student.family)
    if catalogue.spec(TaskSpec, family.task).reads != "answers":
        return
    train = index.select(split="train")
    answered = index.samples.take(train[~index.unanswered[train]])
    require_teachable(student.student, answered)
    losses = token_losses(recipe, catalogue)
    require_same_tokens(student.student, teachers, answered, domain_limits(registry), losses, reporter)


def train_and_promote(
    project: Project, prepared: Prepared, options: Options, accelerator: Accelerator, reporter: Reporter
) -> Outcome | None:
    """The second half of :func:`distill`, from a plan to a version."""
    folder = project.runs / f"{prepared.plan.digest[:16]}-{options.precision}"
    if prepared.finished is not None:
        return _finish_again(project, prepared, prepared.finished, folder, accelerator, reporter)
    if accelerator.is_main_process:
        if prepared.student.parent is not None:
            GuardTasks(project, prepared.inventory).check(prepared.student.parent)
        if options.restart:
            shutil.rmtree(folder, ignore_errors=True)
        pin_names(project, options.recipe)
    accelerator.wait_for_everyone()
    try:
        run = train_plan(project, prepared, options, accelerator, folder, reporter, repair=True)
    finally:
        prepared.inventory.close()
    end_process_group(accelerator)
    if not accelerator.is_main_process:
        return None
    with _keeping_the_student(reporter):
        outcome = promote(project, run, reporter)
    shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _finish_again(
    project: Project,
    prepared: Prepared,
    version: Version,
    folder: Path,
    accelerator: Accelerator,
    reporter: Reporter,
) -> Outcome | None:
    """Do what may be left of a finished run after a kill; judge a refused candidate again."""
    prepared.inventory.close()
    end_process_group(accelerator)
    if not accelerator.is_main_process:
        return None
    reporter.say(f"{version.name} is the result of this plan already; --restart trains it again")
    parent = prepared.student.parent
    if not version.refused:
        Versions(project).make_current(version.name)
    elif parent is not None:
        version = judge_again(project, prepared.plan, prepared.inventory, version, parent, reporter)
    shutil.rmtree(folder, ignore_errors=True)
    return Outcome(version)


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
    begun = time.monotonic()
    made = build(
        plan, inventory, prepared.student, scratch=folder / FOLDER, reporter=reporter, device=accelerator.device
    )
    machine = Machine(
        processes=accelerator.num_processes,
        device=str(accelerator.device),
        precision=options.precision,
        building_seconds=round(time.monotonic() - begun, 3),
    )
    increment = plan.recipe.increment
    part, kept = (increment.repair if repair else None, increment.interpolate) if parent is not None else (None, 1.0)
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
            )
        if kept < 1:
            own = {name: x for name, x in start.items() if name.startswith("student.")}
            load_task_tensors(made.task, interpolate(own, save_state(made.task), kept))
        corrections = corrected.summarize() if corrected else None
        run = TrainedRun(plan, inventory, parent, made.task, progress, machine, corrections)
        if part is None:
            return run
        seconds = options.checkpoint_seconds
        rehearsal = Rehearsal(plan, made, inventory.index, accelerator, folder, seconds, reporter, corrected)
        with _keeping_the_student(reporter):
            return judge_and_repair(project, run, part, start, rehearsal, reporter)
    finally:
        made.inputs.close()


@contextmanager
def _keeping_the_student(reporter: Reporter) -> Iterator[None]:
    """A failure after the last step costs no training."""
    try:
        yield
    except BaseException:
        reporter.say("the trained student is kept: the same command continues with its evaluation")
        raise
