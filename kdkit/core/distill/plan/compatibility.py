"""Combinations of teacher, student and recipe that cannot work, as far as lock and declarations tell.

They are found when a teacher is added, and by ``distill`` and its dry run before an extraction, which may take days.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import IMAGE, TEXT, LossSpec, NeedsSignals, Reporter, Sample, Student
from kdkit.core.data.entries import read_sources
from kdkit.core.distill.model.altered_inputs import require_altering
from kdkit.core.distill.model.projection import require_orthogonal_widths
from kdkit.core.distill.model.sample_packing import pack_samples
from kdkit.core.distill.model.student import StudentBuilder
from kdkit.core.distill.plan.checks import (
    BOXES,
    COORDINATES,
    TOKENIZER,
    coordinates_error,
    other_coordinates,
    token_losses,
)
from kdkit.core.distill.plan.inventory import domain_limits
from kdkit.core.distill.plan.loss_signals import losses_with_teachers, no_signal_error, reads_teacher, skipping_losses
from kdkit.core.features.extract.answers import TOKENS
from kdkit.core.project.recipe import signals_read, teaching_stage
from kdkit.core.project.recipe_file import load_recipe
from kdkit.core.project.versions import Versions

if TYPE_CHECKING:
    from kdkit.core.data import SampleIndex
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.project.project import Project
    from kdkit.core.project.recipe import PreviousPart, Recipe
    from kdkit.core.project.registry.lock import LockedTeacher

MAX_ANSWER = "max_answer"
"""Identity part of teachers and students: the largest number of tokens of an answer."""


class Incompatibility(NamedTuple):
    """What does not fit; ``fatal``: the run would stop at it, perhaps after days of extraction."""

    error: KdkitError
    fatal: bool


def require_compatible(
    recipe: Recipe,
    builder: StudentBuilder,
    teachers: Mapping[str, LockedTeacher],
    samples: Sequence[Sample],
    limits: Mapping[str, Sequence[str]],
    reporter: Reporter,
) -> None:
    """Check teachers before an extraction. What costs only disk or single samples is a warning.

    Args:
        samples: the training samples.
        limits: teacher -> the domains that the registry allows it.

    Raises:
        KdkitError: a teacher that cannot teach all domains that the registry allows it.
    """
    for name, facts in teachers.items():
        allowed = (s for s in samples if s.domain in limits.get(name, (s.domain,)))
        for found in find_incompatibilities(name, facts, recipe, builder, allowed):
            if found.fatal:
                raise found.error
            _warn(found.error, reporter)


def require_needed_signals(recipe: Recipe, catalogue: Catalogue, signals: Iterable[str]) -> None:
    """Check that teachers give what the options of a loss need; see :class:`NeedsSignals`.

    Args:
        signals: of all teachers: of those that are locked, before an extraction; of those that teach, in a plan.

    Raises:
        KdkitError: no teacher gives a signal, or no loss of the recipe reads teachers.
    """
    read = signals_read(recipe, catalogue)
    given = read & set(signals)
    for part in recipe.losses:
        loss = catalogue.make("loss", part.name, **part.options)
        needed = loss.needed_signals if isinstance(loss, NeedsSignals) else ()
        if lacking := [signal for signal in needed if signal not in given]:
            raise KdkitError(
                "KD-DIST-281",
                f"the loss '{part.name}' needs {', '.join(lacking)} features of a teacher, and none are there",
                where=f"recipe {recipe.name}",
                why="no teacher that may teach gives them" if read else "no loss of the recipe reads teachers",
                fix="change its options, or add a teacher that gives them and a loss that reads it, such as 'crd'",
            )


def require_outputs(recipe: Recipe, builder: StudentBuilder) -> None:
    """Check, before an extraction, that the student gives what the losses read.

    Raises:
        KdkitError: a loss that reads another output.
    """
    for part in recipe.losses:
        needed = builder.catalogue.spec(LossSpec, part.name).outputs
        given = cast(Student, builder.student).outputs if needed else {}
        if lacking := [name for name in needed if name not in given]:
            raise KdkitError(
                "KD-DIST-360",
                f"the loss '{part.name}' reads the output {' and '.join(lacking)}, which the student does not give",
                where=f"recipe {recipe.name}",
                why=f"the student gives {', '.join(given)}; all stages of a recipe train the same student",
                fix="choose a recipe for such students: 'kdkit recipes'",
            )


def require_packing(recipe: Recipe, builder: StudentBuilder) -> None:
    """Check, before an extraction, that the student can pack samples, if the recipe says so.

    Raises:
        KdkitError: a student that cannot.
    """
    if recipe.optimizer.pack_tokens is not None:
        pack_samples(recipe, builder.student)


def require_protection(recipe: Recipe, builder: StudentBuilder, index: SampleIndex) -> None:
    """Check, before an extraction, that the student can do what protects the parent without old samples.

    Whether old samples are replayed may depend on trust; then only :func:`require_previous` knows.

    Raises:
        KdkitError: the recipe alters inputs, and the student cannot.
    """
    parent, increment = builder.parent, recipe.increment
    if parent is None:
        return
    train = index.select(split="train")
    absent = set(parent.lineage.data.known) - {index.domains[number] for number in np.unique(index.domain_index[train])}
    seen = np.isin(index.digests[train], parent.known_samples()).any()
    without_replay = bool(increment.replay and absent) and not seen and not increment.previous.protects
    require_previous(increment.without_replay if without_replay else increment.previous, builder)


def require_previous(part: PreviousPart, builder: StudentBuilder) -> None:
    """Raises: KdkitError: this part of an increment alters inputs, and the student cannot."""
    if builder.parent is not None and part.altered:
        require_altering(builder.student)


def compare_with_student(project: Project, name: str, reporter: Reporter) -> None:
    """Warn of all that keeps a teacher from teaching the project's student by its recipe.

    One that may teach nothing is not compared, nor a project whose data or student cannot be read yet; ``distill``
    compares again.
    """
    registry, catalogue = project.registry, project.catalogue
    if name in registry.teachers and not registry.teachers[name].may_teach:
        return
    try:
        recipe = teaching_stage(load_recipe(registry.recipe, catalogue, project.root), catalogue)
        facts = project.lock.teacher(name)
        builder = StudentBuilder.of(project, Versions(project).current())
        answers = TOKENS in facts.signals and TOKENS in signals_read(recipe, catalogue)
        samples = [s for entry in read_sources(project) for s in entry.samples] if answers and registry.data else []
        limits = domain_limits(registry)
        allowed = [s for s in samples if s.split == "train" and s.domain in limits.get(name, (s.domain,))]
        for found in find_incompatibilities(name, facts, recipe, builder, allowed):
            _warn(found.error, reporter)
        if set(facts.signals) in ({IMAGE}, {TEXT}):
            skipping = skipping_losses(recipe, catalogue, facts.signals)
            without = f"; the losses {', '.join(skipping)} skip it" if skipping else ""
            lacking = TEXT if IMAGE in facts.signals else IMAGE
            reporter.say(f"{name} has no {lacking} features: a probe measures trust in it{without}")
        theirs, losses = facts.identity.get(TOKENIZER), token_losses(recipe, catalogue)
        if theirs and losses and answers:
            ours = _identity(builder).get(TOKENIZER)
            if ours and theirs != ours:
                reporter.warn(
                    f"teacher '{name}' and the student have different tokenizer files; 'kdkit distill' compares their "
                    f"tokens answer by answer, which {' and '.join(losses)} need equal"
                )
    except KdkitError as error:
        reporter.say(f"{name} is not compared with the student yet: {error.what}")


def find_incompatibilities(
    name: str, facts: LockedTeacher, recipe: Recipe, builder: StudentBuilder, samples: Iterable[Sample]
) -> Iterator[Incompatibility]:
    """Everything that does not fit; the student is built, and the samples are read, only if it matters.

    Args:
        samples: training samples of the domains that the teacher may teach.
    """
    read = signals_read(recipe, builder.catalogue)
    if not facts.signals or not read:
        return  # it teaches through pseudo-labels alone
    if not any(reads_teacher(spec, facts.signals) for spec in losses_with_teachers(recipe, builder.catalogue)):
        yield Incompatibility(no_signal_error(name, list(facts.signals), recipe, builder.catalogue), fatal=True)
        return
    if recipe.heads == "orthogonal" or recipe.space == "shared":
        student = cast(Student, builder.student)
        for signal, fact in facts.signals.items():
            if signal in read and signal in student.outputs and len(fact.shape) in (1, 2):
                if recipe.space == "shared" and len(fact.shape) == 2:
                    yield Incompatibility(shared_tokens_error(name, recipe), fatal=True)
                elif recipe.heads == "orthogonal":
                    yield from _orthogonal(name, recipe, student.outputs[signal], fact.shape[-1])
    if TOKENS in read and TOKENS in facts.signals:
        yield from _answers(name, facts, _identity(builder), samples)


def _orthogonal(name: str, recipe: Recipe, student: int, teacher: int) -> Iterator[Incompatibility]:
    try:
        require_orthogonal_widths(student, teacher)
    except KdkitError as error:
        yield Incompatibility(head_error(name, recipe, error), fatal=True)


def _answers(
    name: str, facts: LockedTeacher, student: Mapping[str, str], samples: Iterable[Sample]
) -> Iterator[Incompatibility]:
    theirs, ours = facts.identity.get(COORDINATES), student.get(COORDINATES)
    if theirs is not None and ours is not None:
        boxed = [sample for sample in samples if sample.extra.get(BOXES)]
        others = other_coordinates(theirs, ours, boxed)
        if others:
            error = coordinates_error(name, theirs, ours, others)
            yield Incompatibility(error, fatal=True)
    theirs, ours = facts.identity.get(MAX_ANSWER), student.get(MAX_ANSWER)
    if theirs is not None and ours is not None and theirs != ours:
        error = KdkitError(
            "KD-DIST-040",
            f"teacher '{name}' takes answers of at most {theirs} tokens, the student of {ours}",
            where=f"teacher '{name}', options.{MAX_ANSWER}",
            why="a longer answer is refused by the one and accepted by the other; stored places beyond the student's "
            "limit are never read",
            fix=f"give both the same: --option {MAX_ANSWER}={ours}",
            code=ExitCode.FOUND,
        )
        yield Incompatibility(error, fatal=False)


def _identity(builder: StudentBuilder) -> Mapping[str, str]:
    return cast(Student, builder.student).identity()


def _warn(error: KdkitError, reporter: Reporter) -> None:
    reporter.warn("; ".join(filter(None, (f"{error.what} ({error.why})" if error.why else error.what, error.fix))))


def shared_tokens_error(name: str, recipe: Recipe) -> KdkitError:
    return KdkitError(
        "KD-DIST-020",
        f"teacher '{name}' gives features per token, which no aligner maps into a shared space",
        where=f"recipe {recipe.name}",
        fix="use 'space: heads' in the recipe",
    )


def head_error(name: str, recipe: Recipe, error: KdkitError) -> KdkitError:
    what, where = f"teacher '{name}': {error.what}", f"recipe {recipe.name}, {error.where}"
    return KdkitError("KD-DIST-021", what, where=where, fix=error.fix)
