"""Additional training of a student that lost some domains, with more samples of them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdkit.core.contracts import Reporter
from kdkit.core.data import SampleIndex
from kdkit.core.distill.correction.loader import CorrectedDataLoader
from kdkit.core.distill.loop.checkpoint import Checkpoints
from kdkit.core.distill.loop.sampler import BatchSampler
from kdkit.core.distill.loop.sharding import Sharding
from kdkit.core.distill.loop.train import Batches, train
from kdkit.core.distill.model.build import Build
from kdkit.core.distill.plan.plan import grouped, number_turns
from kdkit.core.distill.plan.types import Plan, SamplePool

if TYPE_CHECKING:
    from accelerate import Accelerator

FOLDER = "rehearsal"
"""Folder of a run, with a folder of checkpoints for each training that :meth:`Rehearsal.train` can be asked for."""
SHARE = 0.5
"""Share of each batch that is drawn from the lost domains; the rest is drawn as in the run."""
_SEED = 7_368_787
"""Added to the run's seed, for other batches than the run's."""


@dataclass(frozen=True)
class Rehearsal:
    """Continues the training of a run; every rank takes part.

    Attributes:
        made: what the run trained.
        folder: of the run.
        corrected: batches of the run, if it corrected answers.
    """

    plan: Plan
    made: Build
    index: SampleIndex
    accelerator: Accelerator
    folder: Path
    checkpoint_seconds: float
    reporter: Reporter
    corrected: CorrectedDataLoader | None = None
    sharding: Sharding | None = None

    def train(self, domains: Sequence[str], length: float) -> int:
        """Train on, from a checkpoint if there is one.

        The weights of the last step count, also where the run averaged its own: an average over so few steps would
        consist mostly of the first ones.

        Args:
            domains: of which half of each batch is.
            length: steps as a fraction of the run's.

        Returns:
            The number of steps; 0 if no training sample of ``domains`` is here.
        """
        settings = self.plan.settings
        steps, seed = math.ceil(length * settings.steps), settings.seed + _SEED
        loader = self.dataloader(domains, steps, seed)
        if loader is None:
            self.reporter.say(f"the run has no training sample of {', '.join(domains)} to rehearse")
            return 0
        self.accelerator.free_memory()  # the wrapper of the run would take part in each backward pass
        self.reporter.say(f"training {steps} more steps, with more samples of {', '.join(domains)}")
        train(
            self.made.task,
            loader,
            replace(settings, steps=steps, seed=seed, ema=None, checkpoint_seconds=self.checkpoint_seconds),
            accelerator=self.accelerator,
            checkpoints=self.checkpoints(domains, steps),
            reporter=self.reporter,
            sharding=self.sharding,
        )
        return steps

    def dataloader(self, domains: Sequence[str], steps: int, seed: int) -> Batches | None:
        """The batches, with the run's latest corrections; None if no training sample of ``domains`` is here."""
        made, pools = self.made, rehearsal_pools(self.plan, self.index, domains)
        if not pools:
            return None
        if self.corrected is not None:
            made, pools = self.corrected.add_latest_corrections(pools)
        sampler = BatchSampler(pools, batch_size=self.plan.batch_size, steps=steps, seed=seed)
        return made.dataloader(self.plan, sampler, self.accelerator)

    def checkpoints(self, domains: Sequence[str], steps: int) -> Checkpoints:
        """Those of this training alone: a repeated command with another guard may find other lost domains."""
        key = hashlib.sha256(json.dumps([sorted(domains), steps]).encode()).hexdigest()
        return Checkpoints(self.folder / FOLDER / key[:16])


def rehearsal_pools(plan: Plan, index: SampleIndex, domains: Sequence[str]) -> tuple[SamplePool, ...]:
    """A pool of ``domains``, then the plan's with the rest of each batch; empty without samples of ``domains``."""
    rows = plan.samples
    rows = rows[np.isin(index.domain_index[rows], [index.domains.index(name) for name in domains])]
    if not len(rows):
        return ()
    group, image = grouped(index, rows, plan.pools[0].max_per_group)
    domain = index.domain_index[rows]
    turns = number_turns(plan.recipe, index, rows)
    more = replace(
        plan.pools[0], indices=rows, domain=domain, group=group, image=image, conversation=turns, share=SHARE
    )
    return (more, *(replace(pool, share=pool.share * (1 - SHARE)) for pool in plan.pools))
