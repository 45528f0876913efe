"""Teachers that arrive one after another: a first student, then an increment for each later teacher.

The versions lie in the trial's folder; the project gets none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from torch import nn

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.data import SampleIndex
from kdkit.core.distill.checked_inventory import checked_inventory
from kdkit.core.distill.model.student import StudentBuilder
from kdkit.core.distill.options import Options
from kdkit.core.distill.plan.ablation import shortened
from kdkit.core.distill.plan.plan import make_plan
from kdkit.core.distill.prepare import Prepared
from kdkit.core.distill.promotion import promote
from kdkit.core.distill.training import train_plan
from kdkit.core.distill.trials.trial import TrialOptions
from kdkit.core.project.recipe import Recipe
from kdkit.core.project.registry.schema import GuardEntry
from kdkit.core.project.versions import Versions, load_student

if TYPE_CHECKING:
    from accelerate import Accelerator

    from kdkit.core.project.project import Project

ARRIVED = "arrived.json"
NOTHING_TO_TEACH = ("KD-DIST-033", "KD-DIST-035")
"""Errors of a teacher that may teach no sample yet: the student stays as it is."""


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
        student = StudentBuilder.of(project, Versions(project).current(), self.seed)
        device = str(accelerator.device)
        inventory = checked_inventory(project, self.recipe, student, self.index, Silent(), device)
        try:
            entry = project.registry.student.model_dump(mode="json")
            plan = shortened(make_plan(self.recipe, inventory, student.parent, entry, seed=self.seed), self.length)
            given = Options(cpu=options.cpu, precision=options.precision, checkpoint_seconds=options.checkpoint_seconds)
            prepared = Prepared(plan, inventory, student)
            run = train_plan(project, prepared, given, accelerator, folder / f"teacher-{count}", reporter)
            promote(project, run, Silent())
        except KdkitError as error:
            if error.id not in NOTHING_TO_TEACH:
                raise
            reporter.say(f"{self.order[count - 1]} may teach nothing at its place: {error.what}")
        finally:
            inventory.close()

    def _known(self, count: int, folder: Path) -> Project:
        """The project when the first ``count`` teachers are there; its guard lets every increment pass."""
        registry = self.project.registry
        teachers = {name: registry.teachers[name] for name in self.order[:count]}
        changes = {"teachers": teachers, "guard": GuardEntry(tolerance=100)}
        return self.project.with_registry(registry.model_copy(update=changes)).with_versions(folder / "versions")


def _arrived(folder: Path) -> int:
    """Teachers that have arrived already."""
    file = folder / ARRIVED
    return int(json.loads(file.read_bytes())) if file.is_file() else 0


def expected_steps(recipe: Recipe, steps: int, teachers: int) -> int:
    """Steps of a first run and its increments, at most."""
    return round(steps * (1 + (teachers - 1) * recipe.increment.steps))
