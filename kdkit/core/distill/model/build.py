"""From a plan to what is trained: student, projections or aligners, target normalization, losses."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.tensors import read_tensors
from kdkit.core.contracts import LossSpec, Reporter, Student
from kdkit.core.distill.alignment.fit import subsample
from kdkit.core.distill.loop.dataloader import DistillDataLoader, StepSampler
from kdkit.core.distill.loop.inputs import InputCache
from kdkit.core.distill.loop.random_views import RandomViews, input_size
from kdkit.core.distill.loop.stored_inputs import store_inputs
from kdkit.core.distill.model.aligners import make_aligners
from kdkit.core.distill.model.altered_inputs import AlteredInputs
from kdkit.core.distill.model.frozen_directions import FrozenDirections
from kdkit.core.distill.model.micro_batches import MicroBatches, require_separable
from kdkit.core.distill.model.previous_version import previous_version_targets, student_features
from kdkit.core.distill.model.projection import TeacherProjection, fit_heads, make_heads, module_key
from kdkit.core.distill.model.sample_packing import pack_samples
from kdkit.core.distill.model.student import StudentBuilder
from kdkit.core.distill.model.target_norm import TargetNorm, fit_norms
from kdkit.core.distill.model.task import DistillTask, Term
from kdkit.core.distill.on_policy.loader import OnPolicyDataLoader, OwnAnswers, make_own_answers
from kdkit.core.distill.plan.checks import (
    require_even_batches,
    require_same_coordinates,
    require_same_stored_tokens,
    require_teachable,
    token_losses,
)
from kdkit.core.distill.plan.compatibility import head_error, shared_tokens_error
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.plan.loss_signals import losses_with_teachers, no_signal_error, reads_teacher
from kdkit.core.distill.plan.targets import CaptionTargets, TeacherTargets
from kdkit.core.distill.plan.types import PREVIOUS, Indices, Plan
from kdkit.core.plugin_system.catalogue import resolve
from kdkit.core.project.recipe import LossPart, Recipe, signals_read
from kdkit.core.project.versions import TASK, Version

if TYPE_CHECKING:
    from accelerate import Accelerator

    from kdkit.core.plugin_system.catalogue import Catalogue

ROWS = 4096
"""Rows read from the store at a time to fit something on them."""
FIT_ROWS, FIT_ANSWERS = 2048, 256
"""Samples on which a new teacher's heads are fitted; answers have a row per token, so fewer of them."""


@dataclass(frozen=True)
class Build:
    """What is trained, and on what.

    Attributes:
        inputs: of the student.
        targets: of all teachers.
        domain: (N,) domain of every sample.
        captions: of every sample.
        own_answers: of the student, if the run has any.
    """

    task: DistillTask
    inputs: InputCache
    targets: tuple[TeacherTargets, ...]
    domain: Indices
    captions: CaptionTargets
    own_answers: OwnAnswers | None = None

    def dataloader(
        self, plan: Plan, sampler: StepSampler, accelerator: Accelerator
    ) -> DistillDataLoader | OnPolicyDataLoader:
        """The batches of ``sampler`` for this rank.

        Raises:
            KdkitError: a batch that the ranks cannot share evenly.
        """
        require_even_batches(plan.batch_size, accelerator.num_processes)
        own = self.own_answers
        given = DistillDataLoader(
            sampler,
            self.inputs,
            self.targets,
            self.domain,
            one_teacher=plan.recipe.teachers_per_sample == "one",
            seed=plan.settings.seed,
            captions=self.captions,
            seeded=self.task.altered is not None,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
            pinned=accelerator.device.type == "cuda",
            augmented=plan.recipe.augment is not None,
            own_rows=None if own is None else own.rows,
        )
        return given if own is None else OnPolicyDataLoader(given, own, accelerator)


def build(
    plan: Plan,
    inventory: TeachingInventory,
    builder: StudentBuilder,
    *,
    scratch: Path,
    reporter: Reporter,
    device: torch.device | str = "cpu",
    shown: Indices | None = None,
) -> Build:
    """Make the task of a plan. An increment starts from the parent's student, heads and losses; a later stage from
    those of the stage before.

    Args:
        builder: of the student; knows what it starts from.
        scratch: folder of this plan for the previous version's targets.
        device: of the student.
        shown: samples of a trial run; the previous version's targets are computed for no others, and no inputs are
            stored.

    Raises:
        KdkitError: an answer that the student cannot be taught; a student that is not the start's; a teacher without
            a signal that the losses read.
    """
    student, start, catalogue = builder.student.to(device), builder.parent, builder.catalogue
    builder.restore_generator()
    model = cast(Student, student)
    require_teachable(student, (inventory.index.samples[row] for pool in plan.pools for row in pool.indices))
    for live in inventory.live.values():
        live.join_process_group()
    teachers = checked_targets(plan, inventory, model, catalogue)
    _warn_of_idle_losses(plan.recipe, catalogue, teachers, reporter)
    stored = None
    if builder.reading.cache is not None and shown is None and plan.augmented < len(plan.samples):
        stored = store_inputs(builder.state, model, inventory.index, plan.samples, reporter)
    views = None
    if plan.recipe.augment is not None:
        blank = model.prepare(Image.new("RGB", (64, 64)), inventory.index.samples[int(plan.samples[0])])
        views = RandomViews(plan.recipe.augment, input_size(blank))
    inputs = InputCache(model, inventory.index, stored=stored, threads=builder.reading.threads, views=views)
    targets = list(teachers)
    if plan.increments and plan.previous.weight:
        targets.append(previous_version_targets(student, inputs, plan, catalogue, scratch, reporter, shown))
    saved = {} if start is None else saved_task(start, plan)
    features = None if start is None else lambda rows, label: student_features(student, inputs, rows, reporter, label)
    aligners = make_aligners(catalogue, plan, inventory, teachers, model.outputs, saved, features)
    train = inventory.rows("train")
    projections = _projections(plan.recipe, targets, model.outputs, aligners, train)
    pull = plan.recipe.increment.pull if plan.increments else 0.0
    frozen = altered = None
    if plan.increments and plan.previous.frozen_energy:
        frozen = FrozenDirections(student, plan.previous.frozen_energy, reporter)
    if plan.increments and plan.previous.altered:
        altered = AlteredInputs(student, plan.previous.altered)
    parts = MicroBatches(plan.recipe.optimizer.micro_batch, reporter)
    if parts.splits:
        require_separable(student)
    pack_samples(plan.recipe, student)
    terms = _terms(plan, catalogue, projections)
    task = DistillTask(student, projections, terms, pull=pull, frozen=frozen, altered=altered, micro_batches=parts)
    state = task.state_dict()
    fitting = {name: x for name, x in saved.items() if name in state and state[name].shape == x.shape}
    task.load_state_dict(fitting, strict=False)
    if start is not None and plan.recipe.space == "heads":
        prefixes = {t.name: f"projections.{module_key(t.name)}.heads." for t in teachers}
        without_heads = [t for t in teachers if not any(key.startswith(prefixes[t.name]) for key in saved)]
        _fit_new_heads(task, inputs, without_heads, train, reporter)
    own = make_own_answers(plan, inventory, student, catalogue, reporter)
    return Build(task, inputs, tuple(targets), inventory.index.domain_index, inventory.caption_targets(), own)


def checked_targets(
    plan: Plan, inventory: TeachingInventory, student: Student, catalogue: Catalogue
) -> list[TeacherTargets]:
    """The targets of the plan's teachers.

    Raises:
        KdkitError: a teacher without a signal that the losses read; stored answers in other tokens or coordinates than
            the student's; a signal per token for an aligner.
    """
    signals = signals_read(plan.recipe, catalogue)
    teachers = [inventory.targets(t.name, student.outputs, signals) for t in plan.teachers if t.samples]
    _require_signals(plan.recipe, catalogue, teachers)
    require_same_coordinates(inventory, teachers, student)
    require_same_stored_tokens(inventory, teachers, student, token_losses(plan.recipe, catalogue))
    _require_heads_for_tokens(plan.recipe, teachers)
    return teachers


def _terms(plan: Plan, catalogue: Catalogue, projections: Collection[str]) -> list[Term]:
    def term(name: str, weight: float, options: Mapping[str, Any], *, previous: bool = False) -> Term:
        spec = catalogue.spec(LossSpec, name)
        made = catalogue.make("loss", name, **options)
        together = resolve(spec.together) if spec.together else None
        return Term(name, weight, made, previous, spec.per_sample, spec.by_rows, not spec.signals, together)

    terms = [term(part.name, part.weight, part.options) for part in plan.recipe.losses]
    if PREVIOUS in projections:
        part = plan.previous
        terms.append(term(part.loss, part.weight, part.options, previous=True))
    return terms


def _require_signals(recipe: Recipe, catalogue: Catalogue, teachers: Sequence[TeacherTargets]) -> None:
    losses = losses_with_teachers(recipe, catalogue)
    for teacher in teachers:
        if not any(reads_teacher(spec, teacher.signals) for spec in losses):
            raise no_signal_error(teacher.name, teacher.signals, recipe, catalogue)


def _require_heads_for_tokens(recipe: Recipe, teachers: Sequence[TeacherTargets]) -> None:
    """Aligners are fitted on rows of samples, not of tokens."""
    per_token = [teacher.name for teacher in teachers if teacher.token_lengths]
    if per_token and recipe.space == "shared":
        raise shared_tokens_error(per_token[0], recipe)


def _warn_of_idle_losses(
    recipe: Recipe, catalogue: Catalogue, teachers: Sequence[TeacherTargets], reporter: Reporter
) -> None:
    """A loss without targets is 0, which its curve does not explain."""
    given = {signal for teacher in teachers for signal in teacher.signals}
    for spec in losses_with_teachers(recipe, catalogue) if teachers else ():
        if not any(reads_teacher(spec, teacher.signals) for teacher in teachers):
            lacking = [name for name in spec.signals if name not in given]
            reporter.warn(f"the loss '{spec.name}' reads {', '.join(lacking or spec.signals)}, which no teacher gives")


def _projections(
    recipe: Recipe,
    targets: Sequence[TeacherTargets],
    outputs: Mapping[str, int],
    aligners: Mapping[str, nn.Module],
    train: Indices,
) -> dict[str, TeacherProjection]:
    projections: dict[str, TeacherProjection] = {}
    for teacher in targets:
        if teacher.name == PREVIOUS:
            # Unit length, whatever the recipe does to teachers: only directions of the student's space have a meaning.
            unit = {signal: TargetNorm(width, "unit") for signal, width in teacher.widths.items()}
            projections[PREVIOUS] = TeacherProjection(norms=unit)
            continue
        heads, aligner = _heads(recipe, teacher, outputs), aligners.get(teacher.name)
        widths = teacher.widths if aligner is None else {signal: outputs[signal] for signal in teacher.widths}
        norms = {signal: TargetNorm(width, recipe.targets.normalize) for signal, width in widths.items()}
        fit_norms(norms, target_chunks(teacher, train, aligner))
        projections[teacher.name] = TeacherProjection(heads, aligner, norms)
    return projections


def _heads(recipe: Recipe, teacher: TeacherTargets, outputs: Mapping[str, int]) -> dict[str, nn.Module] | None:
    if recipe.space == "shared":
        return None
    orthogonal = recipe.heads == "orthogonal"
    try:
        return make_heads(outputs, teacher.widths, shared_towers=recipe.shared_towers, orthogonal=orthogonal)
    except KdkitError as error:
        raise head_error(teacher.name, recipe, error) from error


def _fit_new_heads(
    task: DistillTask, inputs: InputCache, teachers: Sequence[TeacherTargets], train: Indices, reporter: Reporter
) -> None:
    """Fit the heads that the start does not have to the student as it is."""
    for teacher in teachers:
        taught = teacher.taught(train)
        if not teacher.widths or not len(taught):
            continue
        chosen = subsample(taught, FIT_ANSWERS if teacher.token_lengths else FIT_ROWS, seed=0)
        student = student_features(task.student, inputs, chosen, reporter, f"fitting the heads of {teacher.name}")
        targets = teacher.load(chosen, teacher.weight[chosen])
        projection = cast(TeacherProjection, task.projections[module_key(teacher.name)])
        fit_heads(projection, {name: torch.from_numpy(x) for name, x in student.items()}, targets)


@torch.no_grad()
def target_chunks(
    teacher: TeacherTargets, samples: Indices, aligner: Any = None
) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """Chunks of the teacher's targets for ``samples``, through its aligner if it has one.

    All signals of a chunk come together, so that a live teacher computes them once: signal -> (n, D) float32.
    For answers, the rows of all tokens; rows of zeros are padding and skipped.
    """
    rows = teacher.rows[teacher.taught(samples)]
    step = max(1, ROWS // max(teacher.token_lengths.values(), default=1))
    for start in range(0, len(rows), step):
        chunk: dict[str, np.ndarray[Any, Any]] = {}
        for signal in teacher.widths:
            x = np.asarray(teacher.gather(signal, rows[start : start + step]), dtype=np.float32)
            if signal in teacher.token_lengths:
                x = x.reshape(-1, x.shape[-1])
                x = x[x.any(axis=1)]
            chunk[signal] = x if aligner is None else aligner.encode(signal, torch.from_numpy(x)).numpy()
        yield chunk


def saved_task(start: Version, plan: Plan) -> dict[str, Tensor]:
    """Heads, aligners, norms and losses of ``start`` that this plan continues.

    Tensors of a teacher that changed since start anew, and those of another loss; so does everything if the recipe's
    space is another one.
    """
    saved = read_tensors(start.file(TASK))
    before, now = start.lineage.recipe, plan.recipe
    parts = ("heads", "space", "shared_towers", "aligner", "targets")
    if any(getattr(before, part) != getattr(now, part) for part in parts):
        return {}
    known = {teacher.name: teacher.fingerprint for teacher in start.lineage.teachers}
    new = [teacher.name for teacher in plan.teachers if known.get(teacher.name) != teacher.fingerprint]
    others = [n for n, pair in enumerate(zip_longest(before.losses, now.losses)) if not _same_loss(*pair)]
    changed = (*(f"projections.{module_key(name)}." for name in new), *(f"losses.{number}." for number in others))
    return {name: x for name, x in saved.items() if not name.startswith(changed)}


def _same_loss(before: LossPart | None, now: LossPart | None) -> bool:
    """Whether parameters of a loss mean the same in both."""
    return before is not None and now is not None and (before.name, before.options) == (now.name, now.options)
