"""Answers that the student cannot be taught, found before anything is computed for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kdkit.core.contracts import Reporter, Sample, StudentSpec, TaskSpec
from kdkit.core.features.extract.refusals import find_refusals, refusal_error

if TYPE_CHECKING:
    from kdkit.core.data import SampleIndex
    from kdkit.core.project.project import Project
    from kdkit.core.project.recipe import Recipe
    from kdkit.core.project.versions import Version
    from kdkit.core.teachers import OpenTeacher


def require_teachable_table(
    project: Project,
    recipe: Recipe,
    parent: Version | None,
    table: SampleIndex,
    reporter: Reporter,
    teachers: Sequence[OpenTeacher],
) -> None:
    """Try the table's training answers on the student that is to be made, or on the parent's, and on its teachers.

    Raises:
        KdkitError: as :func:`require_teachable` and :func:`require_same_tokens`; a student that cannot be made.
    """
    from kdkit.core.distill.model.build import make_student
    from kdkit.core.distill.plan.same_tokens import require_same_tokens, token_losses

    catalogue = project.catalogue
    family = catalogue.spec(StudentSpec, project.registry.student.family)
    if catalogue.spec(TaskSpec, family.task).reads == "answers":
        rows = table.select(split="train")
        taught = [table.samples[row] for row in rows[~table.unanswered[rows]]]
        entries, student = project.registry.teachers, make_student(project, parent)
        require_teachable(student, taught)
        limits = {name: entry.domains for name, entry in entries.items() if entry.domains is not None}
        require_same_tokens(student, teachers, taught, limits, token_losses(recipe, catalogue), reporter)


def require_teachable(student: object, samples: Iterable[Sample]) -> None:
    """Try answers on a student that checks them; any other one is not asked.

    Raises:
        KdkitError: about the first that it refuses, with the number of all.
    """
    refused = find_refusals(student, samples)
    if refused:
        count = f"{len(refused)} training sample{'s' * (len(refused) > 1)}"
        raise refusal_error(refused, f"the student cannot be taught the answers of {count}")
