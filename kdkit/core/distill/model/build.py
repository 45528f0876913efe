"""From a plan to the task and its feed: student, heads or aligners, target normalization, losses."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import LossSpec, Reporter, Student
from kdkit.core.distill.alignment.fit import subsample
from kdkit.core.distill.loop.dataloader import StudentInputs, Teaching
from kdkit.core.distill.loop.sampler import Indices
from kdkit.core.distill.model.aligners import aligners_of
from kdkit.core.distill.model.previous_version import remember, student_features
from kdkit.core.distill.model.projection import PREVIOUS, Bridge, fit_heads, make_heads, module_key
from kdkit.core.distill.model.target_norm import TargetNorm, fit_norms
from kdkit.core.distill.model.task import DistillTask, Term
from kdkit.core.distill.plan.coordinates import require_same_coordinates
from kdkit.core.distill.plan.inventory import Survey
from kdkit.core.distill.plan.plan import Plan
from kdkit.core.distill.plan.same_tokens import require_same_stored_tokens, token_losses
from kdkit.core.distill.plan.teachable import require_teachable
from kdkit.core.project.recipe import Recipe, signals_read
from kdkit.core.project.registry.load import placed
from kdkit.core.project.versions import Version, load_student

if TYPE_CHECKING:
    from kdkit.core.plugin_system.discovery import Catalogue
    from kdkit.core.project.project import Project

ROWS = 4096
"""Rows read from the store at a time when something is fitted on it."""
FIT_ROWS, FIT_ANSWERS = 2048, 256
"""Samples on which a new teacher's heads are fitted; answers, which have a row for each token."""
TASK_FILE = "task.safetensors"
"""Inside a version: the task without the student (heads, aligners, norms, parameters of losses)."""


@dataclass
class Build:
    """What is trained, and on what."""

    task: DistillTask
    inputs: StudentInputs
    teachings: tuple[Teaching, ...]


def build(
    project: Project,
    plan: Plan,
    survey: Survey,
    parent: Version | None,
    reporter: Reporter,
    device: torch.device | str = "cpu",
    *,
    shown: Indices | None = None,
) -> Build:
    """Make the task of a plan; an increment starts from the parent's student, heads and losses.

    Args:
        device: where the student looks at samples, if what it gives for them is needed beforehand, and stays.
        shown: of a run of a few steps, all samples that it shows: the previous version is asked about no others.

    Raises:
        KdkitError: an answer that the student cannot be taught; when the student's family or architecture is not the
            parent's, or when a teacher gives no signal that the student has an output for.
    """
    torch.manual_seed(plan.settings.seed)
    student = make_student(project, parent).to(device)
    require_teachable(student, [survey.table.samples[row] for pool in plan.pools for row in pool.indices])
    outputs = cast(Student, student).outputs
    signals = signals_read(plan.recipe, project.catalogue)
    for live in survey.live.values():
        live.join()
    teachings = [_teaching(survey, t.name, outputs, signals) for t in plan.teachers if t.samples]
    require_same_coordinates(survey, teachings, cast(Student, student))
    losses = token_losses(plan.recipe, project.catalogue)
    require_same_stored_tokens(survey, teachings, cast(Student, student), losses)
    _require_heads(plan, teachings)
    _warn_of_idle(project, plan, teachings, reporter)
    inputs = StudentInputs(cast(Student, student), survey.table)
    previous = plan.previous
    if parent is not None and previous.weight:
        teachings.append(remember(project, student, inputs, plan, len(survey.table), reporter, shown))
    saved = {} if parent is None else saved_task(parent, plan)
    teachers = [teaching for teaching in teachings if teaching.name != PREVIOUS]
    known = None if parent is None else lambda rows, label: student_features(student, inputs, rows, reporter, label)
    aligners = aligners_of(project.catalogue, plan, survey, teachers, outputs, saved, known)
    train = survey.samples("train")
    bridges = _bridges(plan, teachings, outputs, aligners, train)
    terms = [_term(project.catalogue, p.name, p.weight, p.options) for p in plan.recipe.losses]
    if PREVIOUS in bridges:
        terms.append(_term(project.catalogue, previous.loss, previous.weight, previous.options, previous=True))
    task = DistillTask(student, bridges, terms, pull=0.0 if parent is None else plan.recipe.increment.pull)
    inherit(task, saved)
    if parent is not None and plan.recipe.space == "heads":
        fresh = [
            t for t in teachers if not any(key.startswith(f"bridges.{module_key(t.name)}.heads.") for key in saved)
        ]
        _fit_heads(task, inputs, fresh, train, reporter)
    return Build(task, inputs, tuple(teachings))


def make_student(project: Project, parent: Version | None) -> nn.Module:
    """A new student of the registry's family, or the parent's."""
    entry = project.registry.student
    if parent is None:
        with placed(project.registry_path, "student"):
            config = anchored(entry.config, project.root)
            return cast(nn.Module, project.catalogue.make("student", entry.family, **config))
    written = {"family": entry.family, "config": entry.config}
    record = parent.lineage.student
    made_from = {"family": record.family, "config": record.config}
    if written != made_from:
        raise KdkitError(
            "KD-DIST-018",
            f"the student in registry.yaml is not the one that {parent.name} was made from",
            where=str(project.registry_path),
            why=f"{parent.name} has {made_from}, the registry says {written}",
            fix="restore the entry, or run 'kdkit distill' without --incremental for a new student",
        )
    return cast(nn.Module, load_student(parent, project.catalogue)).train()


def _term(
    catalogue: Catalogue, name: str, weight: float, options: Mapping[str, Any], *, previous: bool = False
) -> Term:
    spec = catalogue.spec(LossSpec, name)
    return Term(name, weight, catalogue.make("loss", name, **options), previous, spec.per_sample)


def anchored(value: Any, root: Path) -> Any:
    """A copy in which every string that starts with ``./`` or ``../`` is a path below ``root``.

    That is how a student's config names files of the project, whatever the family calls them.
    """
    if isinstance(value, Mapping):
        return {key: anchored(item, root) for key, item in value.items()}
    if isinstance(value, list):
        return [anchored(item, root) for item in value]
    if isinstance(value, str) and value.startswith(("./", "../")):
        return str(root / value)
    return value


def _teaching(survey: Survey, name: str, outputs: Mapping[str, int], signals: Collection[str]) -> Teaching:
    teaching = survey.teaching(name, outputs, signals)
    if not teaching.widths and not teaching.raw:
        given = ", ".join(spec.name for spec in survey.columns[name].signals)
        raise KdkitError(
            "KD-DIST-019",
            f"teacher '{name}' gives {given}; the losses of the recipe read {', '.join(sorted(signals))}",
            why="there is nothing that it could teach",
            fix="choose a recipe, and a student, of the teacher's kind",
        )
    return teaching


def _require_heads(plan: Plan, teachings: Sequence[Teaching]) -> None:
    """Aligners are fitted on rows of samples, not of tokens."""
    places = [teaching.name for teaching in teachings if teaching.places]
    if places and plan.recipe.space == "shared":
        raise KdkitError(
            "KD-DIST-020",
            f"what teacher '{places[0]}' says of each token cannot be brought into a shared space",
            where=f"recipe {plan.recipe.name}",
            fix="space: heads",
        )


def _warn_of_idle(project: Project, plan: Plan, teachings: Sequence[Teaching], reporter: Reporter) -> None:
    """A loss that finds nothing to compare is 0, which nobody would notice."""
    given = {name for t in teachings for name in (*t.widths, *(spec.name for spec in t.raw))}
    for part in plan.recipe.losses:
        lacking = [name for name in project.catalogue.spec(LossSpec, part.name).signals if name not in given]
        if lacking and teachings:
            reporter.warn(f"the loss '{part.name}' reads {', '.join(lacking)}, which no teacher gives")


def _bridges(
    plan: Plan,
    teachings: Sequence[Teaching],
    outputs: Mapping[str, int],
    aligners: Sequence[nn.Module],
    train: Indices,
) -> dict[str, Bridge]:
    recipe = plan.recipe
    bridges: dict[str, Bridge] = {}
    for teaching in teachings:
        if teaching.name == PREVIOUS:
            # Unit, whatever the recipe does to teachers: only its directions mean anything.
            unit = {signal: TargetNorm(width, "unit") for signal, width in teaching.widths.items()}
            bridges[PREVIOUS] = Bridge(norms=unit)
        elif recipe.space == "heads":
            heads = _heads(recipe, teaching, outputs)
            bridges[teaching.name] = Bridge(heads, norms=_norms(plan, teaching, None, outputs, train))
    if recipe.space == "shared":
        teachers = [teaching for teaching in teachings if teaching.name != PREVIOUS]
        for teacher, aligner in zip(teachers, aligners, strict=True):
            bridges[teacher.name] = Bridge(None, aligner, _norms(plan, teacher, aligner, outputs, train))
    return bridges


def _heads(recipe: Recipe, teaching: Teaching, outputs: Mapping[str, int]) -> dict[str, nn.Module]:
    orthogonal = recipe.heads == "orthogonal"
    try:
        return make_heads(outputs, teaching.widths, shared_towers=recipe.shared_towers, orthogonal=orthogonal)
    except KdkitError as error:
        what, where = f"teacher '{teaching.name}': {error.what}", f"recipe {recipe.name}, {error.where}"
        raise KdkitError("KD-DIST-021", what, where=where, fix=error.fix) from error


def _fit_heads(
    task: DistillTask, inputs: StudentInputs, teachers: Sequence[Teaching], train: Indices, reporter: Reporter
) -> None:
    """Heads that the parent does not bring (of a new teacher, of one that it did not have by it) start where they
    fit the student as it is."""
    for teacher in teachers:
        taught = train[teacher.weight[train] > 0]
        if not teacher.widths or not len(taught):
            continue
        chosen = subsample(taught, FIT_ANSWERS if teacher.places else FIT_ROWS, seed=0)
        student = student_features(task.student, inputs, chosen, reporter, f"fitting the heads of {teacher.name}")
        targets = teacher.targets(chosen, teacher.weight[chosen])
        bridge = cast(Bridge, task.bridges[module_key(teacher.name)])
        fit_heads(bridge, {name: torch.from_numpy(x) for name, x in student.items()}, targets)


def _norms(
    plan: Plan, teaching: Teaching, aligner: nn.Module | None, outputs: Mapping[str, int], train: Indices
) -> dict[str, TargetNorm]:
    """Per signal; an aligner brings it to the width of the student's output."""
    kind = plan.recipe.targets.normalize
    widths = teaching.widths if aligner is None else {signal: outputs[signal] for signal in teaching.widths}
    norms = {signal: TargetNorm(width, kind) for signal, width in widths.items()}
    fit_norms(norms, taught_rows(teaching, train, aligner))
    return norms


@torch.no_grad()
def taught_rows(teaching: Teaching, samples: Indices, aligner: Any = None) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """Chunks of what the teacher teaches about ``samples``, through its aligner if it has one.

    All signals of a chunk come together, so that a live teacher is asked once: signal -> (n, D) float32. Of answers
    with a row for each token, the rows of the tokens that there are (those that are not zero).
    """
    rows = teaching.rows[samples][teaching.weight[samples] > 0]
    step = max(1, ROWS // max(teaching.places.values(), default=1))
    for start in range(0, len(rows), step):
        chunk: dict[str, np.ndarray[Any, Any]] = {}
        for signal in teaching.widths:
            x = np.asarray(teaching.gather(signal, rows[start : start + step]), dtype=np.float32)
            if signal in teaching.places:
                x = x.reshape(-1, x.shape[-1])
                x = x[x.any(axis=1)]
            chunk[signal] = x if aligner is None else aligner.encode(signal, torch.from_numpy(x)).numpy()
        yield chunk


def saved_task(parent: Version, plan: Plan) -> dict[str, Tensor]:
    """The parent's heads, aligners, norms and losses that this plan can go on with.

    Left out, so that they start anew: whatever belongs to a teacher that changed since, and all of it when
    the recipe's space is another one.
    """
    path = parent.folder / TASK_FILE
    try:
        saved = load_file(path)
    except (OSError, ValueError) as error:
        raise KdkitError(
            "KD-DIST-022",
            f"the heads of {parent.name} cannot be read",
            where=str(path),
            why=str(error),
            code=ExitCode.MISSING,
        ) from None
    before, now = parent.lineage.recipe, plan.recipe
    parts = ("heads", "space", "shared_towers", "aligner", "targets")
    if any(getattr(before, part) != getattr(now, part) for part in parts):
        return {}
    changed = tuple(f"bridges.{module_key(name)}." for name in plan.new_teachers)
    return {name: x for name, x in saved.items() if not name.startswith(changed)}


def inherit(task: DistillTask, saved: Mapping[str, Tensor]) -> None:
    """Load what was saved and still has its place in ``task``; what is new keeps its fresh start."""
    state = task.state_dict()
    fitting = {name: x for name, x in saved.items() if name in state and state[name].shape == x.shape}
    task.load_state_dict(fitting, strict=False)
