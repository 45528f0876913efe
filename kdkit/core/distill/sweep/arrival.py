"""Teachers that arrive one after another: a first student, then an increment for each later teacher.

The versions lie in the trial's folder; the project gets none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from torch import nn

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.data import SampleIndex
from kdkit.core.distill.checked_inventory import checked_inventory
from kdkit.core.distill.model.student import StudentBuilder
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.prepare import StagePlanner
from kdkit.core.distill.promotion import promote
from kdkit.core.distill.stages import train_stages
from kdkit.core.distill.trials.trial import TrialOptions
from kdkit.core.project.recipe import Recipe
from kdkit.core.project.registry.schema import GuardEntry
from kdkit.core.project.versions import Versions, load_student

if TYPE_CHECKING:
    from accelerate import Accelerator

    from kdkit.core.project.project import Project

ARRIVED = "arrived.json"
CANNOT_TEACH = (
    *("KD-DIST-032", "KD-DIST-033", "KD-DIST-042", "KD-DIST-281"),
    *("KD-DIST-443", "KD-DIST-444"),  # nobody scores the student's own answers
)
"""Errors of teachers that cannot teach by a recipe: a row without runs, not the end of a sweep."""
NOTHING_TO_TEACH = (*CANNOT_TEACH, "KD-DIST-035")
"""Errors of a teacher that cannot teach at its place: the student stays as it is."""


@dataclass(frozen=True)
class ArrivingTeachers:
    """A training in which teachers arrive in an order.

    Attributes:
        project: with all of them.
        steps: expected, of all runs together.
        length: of every run, as a share of its steps.
    """

    project: Project
    recipe: Recipe
    index: SampleIndex
    order: tuple[str, ...]
    seed: int
    length: float
    steps: int

    def train(self, folder: Path, accelerator: Accelerator, options: TrialOptions, reporter: Reporter) -> nn.Module:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(_arrived(folder), len(self.order)):
            reporter.say(f"teacher {number + 1} of {len(self.order)}: {self.order[number]}")
            self._arrive(number + 1, folder, accelerator, options, reporter)
            write_atomically(folder / ARRIVED, json.dumps(number + 1).encode())
        version = Versions(self._known(len(self.order), folder)).get()
        return cast(nn.Module, load_student(version, self.project.catalogue)).to(accelerator.device)

    def _arrive(
        self, count: int, folder: Path, accelerator: Accelerator, options: TrialOptions, reporter: Reporter
    ) -> None:
        project = self._known(count, folder)
        parent = Versions(project).current()
        student = StudentBuilder.of(project, parent, self.seed)
        recipe = self.recipe.in_every_stage(_without_repair)
        inventories: tuple[TeachingInventory, ...] = ()
        try:
            for stage in recipe.in_order:
                made = checked_inventory(project, stage, student, self.index, Silent(), str(accelerator.device))
                inventories = (*inventories, made)
            given = replace(options.of_a_run(), seed=self.seed, incremental=parent is not None)
            every = set(self.index.domains)
            planner = StagePlanner(project, recipe, inventories, self.index, every, given, Silent(), self.length)
            prepared = planner.prepared(planner.plans(parent), student, None)
            run = train_stages(
                project, prepared, given, accelerator, folder / f"teacher-{count}", reporter, keep_open=True
            )
            promote(project, run, Silent())
        except KdkitError as error:
            if error.id not in NOTHING_TO_TEACH:
                raise
            reporter.say(f"{self.order[count - 1]} teaches nothing at its place: {error.what}")
        finally:
            for inventory in inventories:
                inventory.close()

    def _known(self, count: int, folder: Path) -> Project:
        """The project when the first ``count`` teachers are there; its guard lets every increment pass."""
        registry = self.project.registry
        teachers = {name: registry.teachers[name] for name in self.order[:count]}
        changes = {"teachers": teachers, "guard": GuardEntry(tolerance=100)}
        return self.project.with_registry(registry.model_copy(update=changes)).with_versions(folder / "versions")


def _without_repair(recipe: Recipe) -> Recipe:
    increment = recipe.increment.model_copy(update={"repair": None})
    return recipe.model_copy(update={"increment": increment})


def _arrived(folder: Path) -> int:
    """Teachers that have arrived already."""
    file = folder / ARRIVED
    return int(json.loads(file.read_bytes())) if file.is_file() else 0


def expected_steps(recipe: Recipe, steps: int, teachers: int) -> int:
    """Steps of a first run and its increments, at most."""
    return round(steps * (1 + (teachers - 1) * recipe.in_order[-1].increment.steps))
