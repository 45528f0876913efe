"""What would fill in what a column lacks, for messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdkit.core.project.project import Project


def who_adds(project: Project, teacher: str) -> str:
    """``... adds them``: the command, or, of a teacher whose files are not here (that of a pulled student), who can."""
    locked = project.lock.teachers.get(teacher)
    if teacher in project.registry.teachers and not (locked and locked.held_by_author):
        return f"'kdkit features extract {teacher}' adds them"
    return "only who has its files adds them"
