"""Checks of samples against student and teachers, before a run computes anything for them.

Losses would refuse the same samples, but in the batch that contains them: perhaps the last one of a run, after an
extraction of days.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import AS_IS, BOX_FAMILY, LossSpec, Reporter, Sample, Student
from kdkit.core.contracts.token_signals import SplitsAnswers
from kdkit.core.data.names import name_some
from kdkit.core.distill.plan.targets import TeacherTargets
from kdkit.core.features.extract.answers import TOKENS
from kdkit.core.features.extract.endpoint_answers import only_own_answers
from kdkit.core.features.extract.refusals import find_refusals, refusal_error

if TYPE_CHECKING:
    from kdkit.core.distill.plan.inventory import TeachingInventory
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.project.recipe import PreviousPart, Recipe
    from kdkit.core.teachers import OpenTeacher

TOKENIZER = "tokenizer"
"""Identity part of teachers and students: how they split texts into tokens."""
COORDINATES = "boxes"
"""Identity part of teachers and students: how they write boxes."""
BOXES = "boxes"
"""Key of ``Sample.extra`` where the answer contains boxes."""
ROWS = 4096
"""Stored answers that are read at a time."""


def require_teachable(student: object, samples: Iterable[Sample]) -> None:
    """Try every answer on a student that checks answers.

    Raises:
        KdkitError: about the first refused answer, with the number of all.
    """
    refused = find_refusals(student, samples)
    if refused:
        count = f"{len(refused)} training sample{'s' * (len(refused) > 1)}"
        raise refusal_error(refused, f"the student cannot be taught the answers of {count}")


def idle_losses(recipe: Recipe, catalogue: Catalogue, batch_size: int) -> tuple[str, ...]:
    """The recipe's losses that compare samples and find too few of them in a batch.

    Raises:
        KdkitError: all losses are idle.
    """
    names = [loss.name for loss in recipe.losses]
    idle = tuple(name for name in names if catalogue.spec(LossSpec, name).least_batch > batch_size)
    if len(idle) == len(names):
        raise KdkitError(
            "KD-DIST-042",
            f"no loss of the recipe can teach with batches of {batch_size}",
            where=f"recipe {recipe.name}",
            why=f"{', '.join(idle)}: compared are the samples of a batch",
            fix="choose a larger optimizer.batch_size, or add training samples",
        )
    return idle


def token_losses(recipe: Recipe, catalogue: Catalogue) -> tuple[str, ...]:
    """The recipe's losses that compare teacher and student token by token."""
    names = [loss.name for loss in recipe.losses]
    return tuple(name for name in names if catalogue.spec(LossSpec, name).same_tokens)


def require_same_tokens(
    student: object,
    teachers: Sequence[OpenTeacher],
    taught: Sequence[Sample],
    limits: Mapping[str, Sequence[str]],
    losses: Sequence[str],
    reporter: Reporter,
) -> None:
    """Compare how teachers and student split answers, before the extraction.

    Trust is measured later, so a teacher is refused only if it differs in every domain that it may teach. If it differs
    in some, that is a warning; :func:`require_same_stored_tokens` decides once trust is known.

    Args:
        taught: the training samples with an answer.
        limits: teacher -> the domains that the registry allows it.
        losses: those that compare tokens; without any, nothing is checked.

    Raises:
        KdkitError: naming teacher, losses and a sample.
    """
    for teacher in teachers if losses else ():
        gives_tokens = TOKENS in {spec.name for spec in teacher.signals.signals} and not only_own_answers(teacher.parts)
        theirs, ours = teacher.parts.get(TOKENIZER), _tokenizer(student)
        if not gives_tokens or (theirs is not None and theirs == ours):
            continue
        if not (isinstance(student, SplitsAnswers) and isinstance(teacher.model, SplitsAnswers)):
            known = theirs is not None and ours is not None
            what = f"teacher '{teacher.name}' and the student " + (
                "have different tokenizers" if known else "do not state their tokenizers, so these cannot be compared"
            )
            _warn_of_tokens(reporter, teacher.name, what, losses)
            continue
        allowed = [sample for sample in taught if sample.domain in limits.get(teacher.name, (sample.domain,))]
        differ = [s for s in allowed if _differ(teacher.model.answer_tokens(s), student.answer_tokens(s))]
        domains = {sample.domain for sample in differ}
        if domains and domains == {sample.domain for sample in allowed}:
            raise _different_tokens(teacher.name, differ, len(allowed), losses)
        if domains:
            count = f"{len(differ)} answers of {name_some(sorted(domains))}"
            what = f"teacher '{teacher.name}' splits {count} into other tokens than the student"
            _warn_of_tokens(reporter, teacher.name, what, losses)


def require_same_stored_tokens(
    inventory: TeachingInventory, targets: Sequence[TeacherTargets], student: Student, losses: Sequence[str]
) -> None:
    """Compare the stored tokens of every answer that a teacher is going to teach.

    Raises:
        KdkitError: naming teacher, losses and a sample.
    """
    if not losses or not isinstance(student, SplitsAnswers):
        return
    train = inventory.rows("train")
    for teacher in targets:
        column = inventory.columns.get(teacher.name)
        if column is None or teacher.name in inventory.live or TOKENS not in {spec.name for spec in teacher.raw}:
            continue
        theirs = column.header.parts.get(TOKENIZER)
        if theirs is not None and theirs == _tokenizer(student):
            continue
        taught = teacher.taught(train)
        differ: list[Sample] = []
        for start in range(0, len(taught), ROWS):
            chunk = taught[start : start + ROWS]
            stored = teacher.gather(TOKENS, teacher.rows[chunk]).tolist()
            samples = [inventory.index.samples[row] for row in chunk]
            differ += [s for s, row in zip(samples, stored, strict=True) if _differ(row, student.answer_tokens(s))]
        if differ:
            raise _different_tokens(teacher.name, differ, len(taught), losses)


def require_same_coordinates(inventory: TeachingInventory, targets: Sequence[TeacherTargets], student: Student) -> None:
    """Refuse stored tokens of boxes that the student writes in other coordinates.

    Raises:
        KdkitError: naming teacher, both coordinates and a sample.
    """
    ours = dict(student.identity()).get(COORDINATES)
    train = inventory.rows("train")
    boxed = np.intersect1d(train, inventory.index.rows_with(BOXES)) if ours else train[:0]
    boxed = boxed[[bool(inventory.index.samples[row].extra.get(BOXES)) for row in boxed]]
    for teacher in targets:
        column = inventory.columns.get(teacher.name)
        theirs = column.header.parts.get(COORDINATES) if column is not None else None
        if ours is None or theirs is None or TOKENS not in {spec.name for spec in teacher.raw}:
            continue
        taught = [inventory.index.samples[row] for row in teacher.taught(boxed)]
        others = other_coordinates(theirs, ours, taught)
        if others:
            raise coordinates_error(teacher.name, theirs, ours, others)


def other_coordinates(theirs: str, ours: str, boxed: Sequence[Sample]) -> list[Sample]:
    """The samples with boxes that two models write in different coordinates."""
    return [sample for sample in boxed if _coordinates(theirs, sample) != _coordinates(ours, sample)]


def coordinates_error(teacher: str, theirs: str, ours: str, others: Sequence[Sample]) -> KdkitError:
    example = others[0]
    return KdkitError(
        "KD-DIST-031",
        f"teacher '{teacher}' writes boxes in other coordinates than the student",
        where=example.origin,
        why=f"{len(others)} samples such as '{example.id}': the teacher writes {theirs}, the student {ours}",
        fix="give the teacher the student's coordinates (its option boxes, with min_pixels and max_pixels "
        "for pixels), or limit its 'domains'; its pseudo-labels are converted",
        code=ExitCode.FOUND,
    )


def _coordinates(coordinates: str, sample: Sample) -> str:
    """A model that takes texts as they are has the sample's own coordinates."""
    return str(sample.extra.get(BOX_FAMILY, coordinates)) if coordinates == AS_IS else coordinates


def _tokenizer(student: object) -> str | None:
    return cast(Student, student).identity().get(TOKENIZER)


def _differ(theirs: Sequence[int] | None, ours: Sequence[int] | None) -> bool:
    """Whether ids differ at a position where both have one; negative ids are padding."""
    return any(a != b for a, b in zip(theirs or (), ours or (), strict=False) if a >= 0 and b >= 0)


def _different_tokens(teacher: str, differ: Sequence[Sample], count: int, losses: Sequence[str]) -> KdkitError:
    example = differ[0]
    return KdkitError(
        "KD-DIST-036",
        f"teacher '{teacher}' and the student split answers into different tokens",
        where=example.origin,
        why=f"{len(differ)} of {count} training answers such as that of '{example.id}'; {_need_same(losses)}",
        fix=_token_remedy(teacher),
        code=ExitCode.FOUND,
    )


def _warn_of_tokens(reporter: Reporter, teacher: str, what: str, losses: Sequence[str]) -> None:
    reporter.warn(f"{what}; {_need_same(losses)}, so the run stops if it has to teach them. {_token_remedy(teacher)}")


def _need_same(losses: Sequence[str]) -> str:
    return f"{' and '.join(losses)} need{'s' * (len(losses) == 1)} the same tokens"


def _token_remedy(teacher: str) -> str:
    return (
        "use a recipe with 'uld' instead of these losses (it compares sorted probabilities), limit the teacher's "
        f"'domains', or use its pseudo-labels: kdkit pseudo-label --teacher {teacher}"
    )


def require_shardable(recipe: Recipe, previous: PreviousPart | None) -> None:
    """Check that a run with ``--shard`` needs no whole weights during training.

    Args:
        previous: how the previous version takes part in an increment; None for another run.

    Raises:
        KdkitError: a part of the run that reads or changes them.
    """
    whole = {
        "increment.pull": previous is not None and recipe.increment.pull > 0,
        "frozen_energy": previous is not None and previous.frozen_energy > 0,
        "altered": previous is not None and previous.altered > 0,
        "correction": recipe.correction is not None,
        "on_policy": recipe.on_policy is not None,
    }
    found = [name for name, used in whole.items() if used]
    if found:
        raise KdkitError(
            "KD-DIST-405",
            f"sharded weights do not work with {', '.join(found)} yet",
            where="--shard",
            why="it reads or changes whole weights during training",
            fix="train without --shard, or remove it from the recipe",
        )


def require_even_batches(batch_size: int, processes: int) -> None:
    """Raises: KdkitError: a batch that the processes cannot share evenly."""
    if batch_size % processes:
        raise KdkitError(
            "KD-DIST-038",
            f"{processes} processes cannot share a batch of {batch_size} evenly",
            fix="choose optimizer.batch_size in the recipe as a multiple of the number of processes",
        )
