"""The stages of a run, one after the other; a finished one leaves its student in the folder of the run.

The result of a stage has the form of a version, so the next stage starts exactly as a run on that version would.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from kdkit.core.base.atomic import new_folder
from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Reporter, Student
from kdkit.core.distill.model.build import checked_targets
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import Prepared
from kdkit.core.distill.promotion import write_student
from kdkit.core.distill.run_lineage import NOT_JUDGED, make_lineage
from kdkit.core.distill.trained_run import TrainedRun
from kdkit.core.distill.training import train_plan
from kdkit.core.project.manifest import write_manifest
from kdkit.core.project.versions import Version

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import Accelerator

    from kdkit.core.project.project import Project

RESULT, TRAINING = "stage-", "training-"
"""Folders of a run, before the number of a stage: what it made, and its checkpoints while it trains."""


def train_stages(
    project: Project,
    prepared: Prepared,
    options: Options,
    accelerator: Accelerator,
    folder: Path,
    reporter: Reporter,
    *,
    keep_open: bool = False,
) -> TrainedRun:
    """Train all stages, from the newest checkpoint of the one that was interrupted.

    Args:
        folder: of the run; the last stage has its checkpoints there.
        keep_open: do not close inventories that no later stage needs: another run has them too.

    Returns:
        The last stage, trained; an increment is judged and repaired.
    """
    after: Version | None = None
    for number, stage in enumerate(prepared.earlier):
        _say(stage, reporter)
        begun, later = replace(stage, after=after, earlier=prepared.earlier[:number]), prepared.stages[number + 1 :]
        after = _finish(project, begun, later, options, accelerator, folder, reporter)
        if not keep_open and all(stage.inventory is not other.inventory for other in later):
            stage.inventory.close()
    _say(prepared, reporter)
    return train_plan(project, replace(prepared, after=after), options, accelerator, folder, reporter, repair=True)


def _say(stage: Prepared, reporter: Reporter) -> None:
    if (place := stage.plan.stage) is not None:
        reporter.say(f"{place.title}: {stage.plan.recipe.name}, {stage.plan.settings.steps} steps")


def _finish(
    project: Project,
    stage: Prepared,
    later: Sequence[Prepared],
    options: Options,
    accelerator: Accelerator,
    folder: Path,
    reporter: Reporter,
) -> Version:
    """The result of a stage, which is trained unless that was done; before the first one all later ones are checked."""
    place = stage.plan.stage
    assert place is not None
    result = Version(f"{RESULT}{place.number}", folder / f"{RESULT}{place.number}")
    if accelerator.is_main_process and result.folder.is_dir():
        _discard_if_damaged(result, reporter)
    accelerator.wait_for_everyone()
    if result.folder.is_dir():
        reporter.say(f"{place.title} was finished before")
        return result
    for other in later if stage.after is None else ():
        checked_targets(other.plan, other.inventory, cast(Student, stage.student.student), project.catalogue)
    scratch = folder / f"{TRAINING}{place.number}"
    run = train_plan(project, stage, options, accelerator, scratch, reporter)
    if accelerator.is_main_process:
        with new_folder(result.folder) as draft:
            write_student(draft, run, make_lineage(project, run, result.name, NOT_JUDGED))
            write_manifest(draft)
        shutil.rmtree(scratch, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.free_memory()  # the wrapper of this stage would take part in each backward pass of the next
    stage.student.release()
    return Version(result.name, result.folder)  # one that was discarded had read its manifest


def _discard_if_damaged(result: Version, reporter: Reporter) -> None:
    try:
        result.check()
    except KdkitError as error:
        reporter.warn(f"{error.what}: the stage is trained again")
        shutil.rmtree(result.folder)
