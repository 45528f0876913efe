"""What a run has after its last step: of the run, or of one of its stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.distill.judge import Judgement
from kdkit.core.distill.loop.checkpoint_files import Progress
from kdkit.core.distill.model.task import DistillTask
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.plan.types import Plan
from kdkit.core.project.repair_record import RepairRecord
from kdkit.core.project.training_record import Machine
from kdkit.core.project.versions import Version

if TYPE_CHECKING:
    from kdkit.core.distill.correction.loader import Corrections


@dataclass(frozen=True)
class TrainedRun:
    """A run after its last step.

    Attributes:
        parent: the version that an increment started from.
        corrections: of its rounds of correction, if it had any.
        judgement: of the student as it is now, if it was judged while the run could still repair it.
        repair: what was tried because the guard refused the student as it was trained.
        after: result of the stage before, which this one started from.
        earlier: plans of all stages before.
    """

    plan: Plan
    inventory: TeachingInventory
    parent: Version | None
    task: DistillTask
    progress: Progress
    machine: Machine
    corrections: Corrections | None = None
    judgement: Judgement | None = None
    repair: RepairRecord | None = None
    after: Version | None = None
    earlier: tuple[Plan, ...] = ()

    @property
    def start(self) -> Version | None:
        """What the student started from."""
        return self.after or self.parent

    @property
    def plans(self) -> tuple[Plan, ...]:
        """Those of all stages."""
        return (*self.earlier, self.plan)

    @property
    def known_domains(self) -> set[str]:
        """Domains that the student was taught, in this run or before."""
        index, plan = self.inventory.index, self.plan
        taught = {index.domains[d] for pool in plan.pools for d in np.unique(pool.domain)}
        if not self.inventory.learns_alone:
            taught -= set(plan.domains_without_teacher)
        return taught | (set(self.start.lineage.data.known) if self.start else set())

    @property
    def known_samples(self) -> np.ndarray[Any, Any]:
        """(N,) uint64, sorted: digests of all training samples that the student was taught, in this run or before."""
        taught = self.inventory.index.digests[self.plan.samples]
        return np.unique(np.concatenate([taught, self.start.known_samples()]) if self.start else taught)
