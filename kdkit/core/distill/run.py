"""``kdkit distill`` from a project to a version, for the command line and for Python."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from kdkit.core.contracts import Reporter, Silent
from kdkit.core.distill.guard_tasks import GuardTasks
from kdkit.core.distill.loop.accelerator import end_process_group, make_accelerator
from kdkit.core.distill.loop.distributed import peer_errors, require_same
from kdkit.core.distill.loop.launcher import launched_sharding
from kdkit.core.distill.loop.tracking import require_trackers
from kdkit.core.distill.options import Options
from kdkit.core.distill.plan.joint_extraction import main_process_first
from kdkit.core.distill.prepare import Prepared, prepare
from kdkit.core.distill.promotion import Outcome, judge_again, promote
from kdkit.core.distill.stages import train_stages
from kdkit.core.distill.training import keeping_the_student
from kdkit.core.project.registry.pins import pin_names
from kdkit.core.project.versions import Version, Versions
from kdkit.core.teachers.initial_weights import with_initial_weights

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import Accelerator

    from kdkit.core.project.project import Project


def distill(project: Project, options: Options, *, reporter: Reporter | None = None) -> Outcome | None:
    """Make the first version, or an increment; continue an interrupted run of the same plan.

    A plan that has made a version already makes no second one, unless ``options.restart`` is set.

    With ``torchrun`` or ``accelerate launch`` every process calls this. All extract; the main process evaluates and
    writes, and only there the result is not None.

    Raises:
        KdkitError: see :func:`~kdkit.core.distill.prepare.prepare` and
            :func:`kdkit.core.distill.loop.train.train`.
    """
    require_trackers(options.track)
    options = replace(options, sharding=options.sharding or launched_sharding())
    accelerator = make_accelerator(options.precision, cpu=options.cpu)
    reporter = reporter if reporter is not None and accelerator.is_main_process else Silent()
    if options.sharding is not None and accelerator.num_processes == 1:
        reporter.warn("--shard changes nothing in one process: add --gpus N")
    with peer_errors():
        require_same(lambda: {"registry": project.registry.model_dump_json()})
        with main_process_first(project, str(accelerator.device)):
            if not options.from_current:
                project = with_initial_weights(project, reporter)
            prepared = prepare(project, options, reporter, str(accelerator.device))
        require_same(prepared.digests)
        return train_and_promote(project, prepared, options, accelerator, reporter)


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
        run = train_stages(project, prepared, options, accelerator, folder, reporter)
    finally:
        prepared.close()
    end_process_group(accelerator)
    if not accelerator.is_main_process:
        return None
    with keeping_the_student(reporter):
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
    prepared.close()
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
