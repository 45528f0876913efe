"""A few real steps of a plan, which leave nothing behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.base.atomic import draft_beside
from kdkit.core.contracts import Reporter
from kdkit.core.distill.loop.checkpoint import Checkpoints
from kdkit.core.distill.loop.dataloader import DistillBatch
from kdkit.core.distill.loop.distributed import broadcast, peer_errors, require_same
from kdkit.core.distill.loop.sampler import BatchSampler
from kdkit.core.distill.loop.sharding import Sharding
from kdkit.core.distill.loop.stopwatch import Stopwatch
from kdkit.core.distill.loop.train import train
from kdkit.core.distill.model.build import Build, build
from kdkit.core.distill.model.previous_version import FOLDER
from kdkit.core.distill.options import Options
from kdkit.core.distill.plan.joint_extraction import main_process_first
from kdkit.core.distill.prepare import Prepared, prepare
from kdkit.core.teachers.initial_weights import require_initial_weights

if TYPE_CHECKING:
    from accelerate import Accelerator

    from kdkit.core.project.project import Project


@contextmanager
def prepared_to_try(
    project: Project, options: Options, accelerator: Accelerator, reporter: Reporter
) -> Iterator[Prepared]:
    """The plan that :func:`~kdkit.core.distill.run.distill` would follow, the same in all processes.

    Raises:
        KdkitError: initial weights of the student are not here, before anything is extracted; as :func:`prepare`.
    """
    with peer_errors():
        with main_process_first(project, str(accelerator.device)):
            if not options.from_current:
                require_initial_weights(project, reporter)
            prepared = prepare(project, options, reporter, str(accelerator.device))
        try:
            require_same(prepared.digests)
            yield prepared
        finally:
            prepared.close()


def try_steps(
    state: Path,
    prepared: Prepared,
    accelerator: Accelerator,
    steps: int,
    *,
    targets: Reporter,
    reporter: Reporter,
    stopwatch: Stopwatch | None = None,
    sharding: Sharding | None = None,
    inspect: Callable[[Build, DistillBatch], None] | None = None,
) -> Build:
    """Train a copy of the plan's student for the first ``steps``, without its moving average.

    Args:
        state: the project's folder of machine state, which gets a scratch folder for the time being.
        targets: hears of the previous version's targets.
        reporter: hears of the steps.
        stopwatch: measures the parts of each step.
        sharding: how several processes share the weights.
        inspect: gets the trained task and the first batch once more.
    """
    plan = prepared.plan
    sampler = BatchSampler(plan.pools, batch_size=plan.batch_size, steps=steps, seed=plan.settings.seed)
    shown = np.unique(np.concatenate([sampler[step] for step in range(steps)]))
    with ExitStack() as own:  # several commands may measure at once
        main = accelerator.is_main_process
        scratch = broadcast(own.enter_context(draft_beside(state / FOLDER)) if main else Path())
        made = build(
            plan,
            prepared.inventory,
            prepared.student,
            scratch=scratch,
            reporter=targets,
            device=accelerator.device,
            shown=shown,
        )
        if stopwatch is not None:
            stopwatch.attach(made.task.student)
        train(
            made.task,
            made.dataloader(plan, sampler, accelerator),
            dataclasses.replace(plan.settings, steps=steps, ema=None),
            accelerator=accelerator,
            checkpoints=_NoCheckpoints(state / "no checkpoints"),
            reporter=reporter,
            stopwatch=stopwatch,
            sharding=sharding,
        )
        if inspect is not None:
            for _, batch in islice(made.dataloader(plan, sampler, accelerator).batches(0), 1):
                inspect(made, batch)
        accelerator.wait_for_everyone()  # all of them read the scratch
    made.inputs.close()
    return made


class _NoCheckpoints(Checkpoints):
    """The trial steps write nothing."""

    def require_space(self, *_: Any, **__: Any) -> None:
        pass

    def save(self, *_: Any, **__: Any) -> None:
        pass
