"""Whether a teacher splits answers into the student's tokens, where a loss compares both token by token.

Losses refuse other tokens in the batch that has them, which may be the last one of a run, after an extraction of days.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import LOGPROBS, LossSpec, Reporter, Sample, Student
from kdkit.core.contracts.token_signals import SplitsAnswers
from kdkit.core.data.load import name_some
from kdkit.core.features.extract.answers import TOKENS

if TYPE_CHECKING:
    from kdkit.core.distill.loop.dataloader import Teaching
    from kdkit.core.distill.plan.inventory import Survey
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.project.recipe import Recipe
    from kdkit.core.teachers import OpenTeacher

TOKENIZER = "tokenizer"
"""The part of a teacher's and a student's identity that says how they split texts."""
ROWS = 4096
"""Stored answers that are read at one time."""


def token_losses(recipe: Recipe, catalogue: Catalogue) -> tuple[str, ...]:
    """The losses of a recipe that need teachers of the student's tokens."""
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
    """Compare how teachers and student split answers, before teachers are asked about them.

    Who may teach what is measured later. So a teacher is refused if it splits answers of every domain otherwise that
    it may be asked about; where only some are, that is a warning, and :func:`require_same_stored_tokens` knows more.

    Args:
        taught: the training samples with an answer.
        limits: teacher -> the domains that the registry names for it.
        losses: those that compare tokens; without any, nothing is looked at.

    Raises:
        KdkitError: naming teacher, losses and a sample.
    """
    for teacher in teachers if losses else ():
        speaks = TOKENS in {spec.name for spec in teacher.signals.signals} and LOGPROBS not in teacher.parts
        theirs, ours = teacher.parts.get(TOKENIZER), _tokenizer(student)
        if not speaks or (theirs is not None and theirs == ours):
            continue
        if not (isinstance(student, SplitsAnswers) and isinstance(teacher.model, SplitsAnswers)):
            if theirs is None or ours is None:  # nothing is known
                continue
            _warn(reporter, teacher.name, f"teacher '{teacher.name}' and the student have different tokenizers", losses)
            continue
        own = [sample for sample in taught if sample.domain in limits.get(teacher.name, (sample.domain,))]
        differ = [s for s in own if _differ(teacher.model.answer_tokens(s), student.answer_tokens(s))]
        domains = {sample.domain for sample in differ}
        if domains and domains == {sample.domain for sample in own}:
            raise _refused(teacher.name, differ, len(own), losses)
        if domains:
            count = f"{len(differ)} answers of {name_some(sorted(domains))}"
            _warn(
                reporter,
                teacher.name,
                f"teacher '{teacher.name}' splits {count} into other tokens than the student",
                losses,
            )


def require_same_stored_tokens(
    survey: Survey, teachings: Sequence[Teaching], student: Student, losses: Sequence[str]
) -> None:
    """Compare the stored tokens of every answer that a teacher is going to teach, once it is known which these are.

    Raises:
        KdkitError: naming teacher, losses and a sample.
    """
    if not losses or not isinstance(student, SplitsAnswers):
        return
    train = survey.samples("train")
    for teaching in teachings:
        column = survey.columns.get(teaching.name)
        if column is None or teaching.name in survey.live or TOKENS not in {spec.name for spec in teaching.raw}:
            continue
        theirs = column.header.parts.get(TOKENIZER)
        if theirs is not None and theirs == _tokenizer(student):
            continue
        own = train[teaching.weight[train] > 0]
        differ: list[Sample] = []
        for start in range(0, len(own), ROWS):
            part = own[start : start + ROWS]
            stored = teaching.gather(TOKENS, teaching.rows[part]).tolist()
            samples = [survey.table.samples[row] for row in part]
            differ += [s for s, row in zip(samples, stored, strict=True) if _differ(row, student.answer_tokens(s))]
        if differ:
            raise _refused(teaching.name, differ, len(own), losses)


def _tokenizer(student: object) -> str | None:
    return cast(Student, student).identity().get(TOKENIZER)


def _differ(theirs: Sequence[int] | None, ours: Sequence[int] | None) -> bool:
    """As losses see it: at a place where both have a token (ids are not negative)."""
    return any(a != b for a, b in zip(theirs or (), ours or (), strict=False) if a >= 0 and b >= 0)


def _refused(teacher: str, differ: Sequence[Sample], count: int, losses: Sequence[str]) -> KdkitError:
    example = differ[0]
    return KdkitError(
        "KD-DIST-036",
        f"teacher '{teacher}' and the student split answers into different tokens",
        where=example.origin,
        why=f"{len(differ)} of {count} training answers such as that of '{example.id}'; {_compare(losses)}",
        fix=_way_out(teacher),
        code=ExitCode.FOUND,
    )


def _warn(reporter: Reporter, teacher: str, what: str, losses: Sequence[str]) -> None:
    refused = f"{_compare(losses)}, so a run is refused in which it teaches answers that are split otherwise"
    reporter.warn(f"{what}; {refused}. The way out: {_way_out(teacher)}")


def _compare(losses: Sequence[str]) -> str:
    return f"{' and '.join(losses)} compare{'s' * (len(losses) == 1)} the same tokens"


def _way_out(teacher: str) -> str:
    return (
        "a recipe with 'uld' in the place of these losses (it compares sorted probabilities), other domains ('domains' "
        f"of the teacher's entry), or its pseudo-labels: kdkit pseudo-label --teacher {teacher}"
    )
