"""The published form of a student that answers, by its family's publisher, proved to answer as the version does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdkit.core.contracts import Published, Reporter, StudentSpec
from kdkit.core.plugin_system.discovery import resolve
from kdkit.core.project.versions import Version, load_student
from kdkit.core.sharing.release.compare_answers import compare_answers
from kdkit.core.sharing.release.form import StudentForm

if TYPE_CHECKING:
    from kdkit.core.project.project import Project


def publisher_of(project: Project, version: Version) -> str:
    """Import string of the publisher of the version's family; empty where it has none."""
    family = version.lineage.student.family
    return project.catalogue.spec(StudentSpec, family).publisher


def publish(
    project: Project, version: Version, to: Path, repo: str, reporter: Reporter, *, merged: bool = False
) -> StudentForm:
    """Write the student of a version into ``to`` as ``repo`` will hold it, and run the lines of its card on that.

    Args:
        repo: a repository, or ``to`` itself for a folder that is loaded by its path.
        merged: whole weights where the student has adapters.

    Raises:
        KdkitError: as the publisher and :func:`compare_answers`.
    """
    publisher = resolve(publisher_of(project, version))
    published: Published = publisher(version.student_folder, to, repo, merged=merged)
    needs = f" with {' and '.join(published.needs)}" * bool(published.needs)
    reporter.say(f"checking that stock {published.library}{needs} gives the same answers")
    difference, allowed, environment = compare_answers(
        published, load_student(version, project.catalogue), where=repo, repo=repo, folder=to
    )
    return StudentForm(
        kind=published.kind,
        task="answering",
        library=published.library,
        pipeline="image-text-to-text",
        tags=published.tags,
        summary=published.summary,
        names=published.names,
        text_tower=None,
        lines={published.library: published.lines},
        checks={published.library: {"tolerance": allowed, "logit_difference": difference}},
        environment=environment,
        compared="logits",
        taught="question-answer pair",
        judged="questions",
        needs=published.needs,
        notes=published.notes,
        base=published.base,
    )
