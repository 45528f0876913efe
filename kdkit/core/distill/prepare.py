"""From a project to the plans of a run, one for each stage of its recipe, without training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.data import SampleIndex, load_index
from kdkit.core.distill.checked_inventory import check_recipe, checked_inventory, measurable_domains
from kdkit.core.distill.correction.schedule import add_correction
from kdkit.core.distill.loop.distributed import get_world_size
from kdkit.core.distill.loop.sharding import require_groups, require_plain_weights, require_sharding
from kdkit.core.distill.model.student import StudentBuilder, student_facts
from kdkit.core.distill.on_policy.plan import add_on_policy
from kdkit.core.distill.options import Options
from kdkit.core.distill.plan.ablation import shortened
from kdkit.core.distill.plan.checks import idle_losses, require_even_batches, require_shardable
from kdkit.core.distill.plan.compatibility import require_needed_signals, require_outputs, require_previous
from kdkit.core.distill.plan.continuation import after_stages, continue_from
from kdkit.core.distill.plan.gaps import tell_of_import, warn_of_gaps
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.plan.loss_signals import with_skipping_losses
from kdkit.core.distill.plan.plan import NOTHING_NEW, make_plan, tell_conversations
from kdkit.core.distill.plan.types import Plan, StagePlace
from kdkit.core.project.recipe import Recipe, learns_alone, signals_read
from kdkit.core.project.recipe_file import load_recipe
from kdkit.core.project.versions import Version, Versions
from kdkit.core.teachers.initial_weights import initial_lines

if TYPE_CHECKING:
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class Prepared:
    """A plan, and what it was made from.

    Attributes:
        student: builds the run's student, once; knows the version that an increment starts from.
        finished: the version that this plan has made already, if any.
        earlier: the stages before this one; they name none themselves.
        after: result of the stage before, once that is trained.
    """

    plan: Plan
    inventory: TeachingInventory
    student: StudentBuilder
    finished: Version | None = None
    earlier: tuple[Prepared, ...] = ()
    after: Version | None = None

    @property
    def stages(self) -> tuple[Prepared, ...]:
        """All stages, this one last."""
        return (*self.earlier, self)

    @property
    def builder(self) -> StudentBuilder:
        """Of the student as this stage starts."""
        return self.student if self.after is None else replace(self.student, parent=self.after)

    def digests(self) -> dict[str, str]:
        """What all processes of a run must have alike: data and plans."""
        index = self.inventory.index
        data = blake2b("\0".join(index.ids).encode(), digest_size=16)
        data.update(index.digests.tobytes())
        plans = [(stage.plan.digest, stage.plan.finished) for stage in self.stages]
        return {"data": data.hexdigest(), "plans": repr(plans)}

    def close(self) -> None:
        """Release the models of live teachers."""
        for stage in self.stages:
            stage.inventory.close()


def prepare(project: Project, options: Options, reporter: Reporter, device: str = "cpu") -> Prepared:
    """Extract what is missing, measure trust and make the plan of every stage, without training.

    Raises:
        KdkitError: ``--incremental`` without a version or with nothing new; no such stage; errors of registry, data or
            teachers.
    """
    recipe = _chosen_recipe(project, options)
    versions = Versions(project)
    parent = _parent(versions, incremental=options.from_current)
    _check_processes(recipe, options)
    if parent is None:
        for line in initial_lines(project):
            reporter.say(line)
    student = StudentBuilder.of(project, parent, options.seed)
    if options.sharding is not None and _processes(options) > 1:
        require_plain_weights(student.student)
    index = load_index(project, reporter)
    inventories = _inventories(project, recipe.in_order, student, index, reporter, device)
    judged = measurable_domains(project, inventories[-1])
    planner = StagePlanner(project, recipe, inventories, index, judged, options, reporter)
    if parent is not None and not options.restart:
        repeated = _repeated(versions, parent, planner.plans, options.precision)
        if repeated is not None:
            start, plans = repeated
            return planner.prepared(plans, StudentBuilder.of(project, start, options.seed), parent)
    plans = planner.plans(parent)
    finished = None if options.restart else versions.made_by(plans[-1].digest, options.precision)
    if finished is None:
        planner.tell_skipped(plans)
        for plan in plans:
            require_outputs(plan.recipe, student)
            require_previous(plan.previous, student)
            require_even_batches(plan.batch_size, _processes(options))
            if options.sharding is not None:
                require_shardable(plan.recipe, plan.previous if plan.increments else None)
            warn_of_gaps(plan, parent, versions, reporter)
            tell_conversations(plan, reporter)
        tell_of_import(parent, reporter)
    return planner.prepared(plans, student, finished)


@dataclass(frozen=True)
class StagePlanner:
    """Plans the stages of a recipe on what the project has.

    Attributes:
        inventories: of each stage.
        judged: domains that the calibration split can measure.
        length: share of the steps of every stage, in (0, 1].
    """

    project: Project
    recipe: Recipe
    inventories: tuple[TeachingInventory, ...]
    index: SampleIndex
    judged: set[str]
    options: Options
    reporter: Reporter
    length: float = 1.0

    def plans(self, start: Version | None) -> tuple[Plan, ...]:
        """Those of all stages that have something to do; a recipe without stages has one.

        Raises:
            KdkitError: a stage that nothing can teach; an increment with nothing new in any of them.
        """
        made, nothing_new = list[Plan](), None
        for number, inventory in enumerate(self.inventories):
            try:
                made.append(after_stages(self._plan(number, inventory, start), tuple(made)))
            except KdkitError as error:
                if error.id != NOTHING_NEW:
                    raise self._located(error, number) from None
                nothing_new = error
        if not made:
            assert nothing_new is not None
            raise nothing_new
        return self._joined(made)

    def _plan(self, number: int, inventory: TeachingInventory, start: Version | None) -> Plan:
        recipe, catalogue = self.recipe.in_order[number], self.project.catalogue
        project = self.project
        entry = student_facts(project) if start is None else project.registry.student.model_dump(mode="json")
        new = self.options.continued
        plan = make_plan(recipe, inventory, None if new else start, entry, seed=self.options.seed)
        if plan.parent is None or not plan.previous.weight:  # the previous version has texts too
            teaching = [inventory.columns[teacher.name] for teacher in plan.teachers if teacher.samples]
            require_needed_signals(recipe, catalogue, (spec.name for column in teaching for spec in column.signals))
        if new and start is not None:
            plan = continue_from(plan, start)
        plan = replace(
            plan,
            idle_losses=idle_losses(recipe, catalogue, plan.batch_size),
            teachers=with_skipping_losses(plan.teachers, inventory.columns, recipe, catalogue),
            stage=StagePlace(number + 1, len(self.inventories)) if self.recipe.stages else None,
        )
        plan = add_on_policy(recipe, shortened(plan, self.length), inventory)
        return add_correction(self.project, plan, self.index, self.reporter)

    def _located(self, error: KdkitError, number: int) -> KdkitError:
        """With the stage, if the recipe has any."""
        name = self.recipe.in_order[number].name
        stage = f"recipe {self.recipe.name}, stage {number + 1} ({name})"
        return error.at(stage) if self.recipe.stages and not error.where else error

    def _joined(self, made: Sequence[Plan]) -> tuple[Plan, ...]:
        """The last plan knows the domains that no stage is judged on, and the whole recipe as it was planned."""
        trained = {self.index.domains[d] for plan in made for pool in plan.pools for d in np.unique(pool.domain)}
        last = replace(made[-1], domains_not_judged=tuple(sorted(trained - self.judged)))
        if last.stage is not None:
            stages = list(self.recipe.stages)
            for plan in made:
                stages[(plan.stage or last.stage).number - 1] = plan.recipe
            last = replace(last, stage=replace(last.stage, recipe=self.recipe.with_stages(stages)))
        return (*made[:-1], last)

    def tell_skipped(self, plans: Sequence[Plan]) -> None:
        """Say which stages have nothing to do."""
        done = {plan.stage.number for plan in plans if plan.stage is not None}
        for number, recipe in enumerate(self.recipe.stages, 1):
            if number not in done:
                self.reporter.say(f"stage {number} ({recipe.name}) is left out: there is nothing new for it")

    def prepared(self, plans: Sequence[Plan], student: StudentBuilder, finished: Version | None) -> Prepared:
        """The plans with what they were made from."""
        if finished is not None:
            plans = (*plans[:-1], replace(plans[-1], finished=finished.name))
        made = [
            Prepared(plan, self.inventories[(plan.stage.number if plan.stage else 1) - 1], student) for plan in plans
        ]
        return replace(made[-1], finished=finished, earlier=tuple(made[:-1]))


def _chosen_recipe(project: Project, options: Options) -> Recipe:
    """The recipe, or the stage of it that is asked for, with the registry's settings."""
    registry = project.registry
    recipe = load_recipe(options.recipe or registry.recipe, project.catalogue, project.root).changed_by(registry)
    if options.stage is None:
        return recipe
    if not 1 <= options.stage <= len(recipe.stages):
        has = f"{len(recipe.stages)} stages" if recipe.stages else "no stages"
        raise KdkitError(
            "KD-DIST-361",
            f"recipe {recipe.name} has no stage {options.stage}",
            where="--stage",
            why=f"it has {has}",
            fix=f"'kdkit recipes show {options.recipe or registry.recipe}' prints them",
        )
    return recipe.stages[options.stage - 1]


def _check_processes(recipe: Recipe, options: Options) -> None:
    """Refuse what several processes cannot do, before an extraction; what depends on it, the plan tells."""
    if options.sharding is not None and _processes(options) > 1:
        require_sharding()
        require_groups(options.sharding, _processes(options))
    for stage in recipe.in_order:
        require_even_batches(stage.optimizer.batch_size, _processes(options))
        if options.sharding is not None:
            require_shardable(stage, stage.increment.previous if options.incremental else None)


def _processes(options: Options) -> int:
    return max(options.processes, get_world_size())


def _inventories(
    project: Project,
    recipes: Sequence[Recipe],
    student: StudentBuilder,
    index: SampleIndex,
    reporter: Reporter,
    device: str,
) -> tuple[TeachingInventory, ...]:
    """That of each stage, after the checks of all; stages that weigh the same teachers alike share one."""

    def check_all() -> None:
        """A later stage that does not fit is found before the extraction of an earlier one."""
        for recipe in recipes if len(recipes) > 1 else ():
            require_outputs(recipe, student)
            check_recipe(project, recipe, student, index, Silent())

    made: dict[str, TeachingInventory] = {}
    found = []
    for recipe in recipes:
        corrector = recipe.correction.corrector if recipe.correction else None
        alone = learns_alone(recipe, project.catalogue)
        reads = bool(signals_read(recipe, project.catalogue))
        key = json.dumps([recipe.trust.model_dump(mode="json") if reads else None, alone, reads, corrector])
        if key in made:
            check_recipe(project, recipe, student, index, reporter)
        else:
            made[key] = checked_inventory(project, recipe, student, index, reporter, device, check_all)
        found.append(made[key])
    return tuple(found)


def _repeated(
    versions: Versions, current: Version, plans_from: Callable[[Version | None], tuple[Plan, ...]], precision: str
) -> tuple[Version, tuple[Plan, ...]] | None:
    """The parent of ``current`` and the plans, if the same increment would be planned from there again.

    Then there is nothing new since ``current``: the command repeats the one that made it.
    """
    with suppress(KdkitError):  # damaged ancestors, or nothing to plan there
        before = versions.ancestry(current)[-2:-1]
        plans = plans_from(before[0]) if before else ()
        training = current.lineage.training
        if plans and (plans[-1].digest, precision) == (training.digest, training.machine.precision):
            return before[0], plans
    return None


def _parent(versions: Versions, *, incremental: bool) -> Version | None:
    current = versions.current()
    if incremental and current is None:
        raise KdkitError(
            "KD-DIST-037",
            "--incremental needs a version to start from, and there is none",
            where=str(versions.root),
            fix="run 'kdkit distill' first; it makes v1. 'kdkit import-student' keeps a student that you have, as v0",
            code=ExitCode.USAGE,
        )
    return current if incremental else None
