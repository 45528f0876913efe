"""Teachers: added and removed, their files fetched and verified, their models loaded."""

from kdkit.core.teachers.add import (
    Addition,
    add_and_measure,
    add_teacher,
    check_lock,
    lock_teachers,
    plan_addition,
    remove_teacher,
)
from kdkit.core.teachers.fetch import Materialized
from kdkit.core.teachers.open import OpenTeacher, materialize, open_answering, open_teacher, verify

__all__ = [
    "Addition",
    "Materialized",
    "OpenTeacher",
    "add_and_measure",
    "add_teacher",
    "check_lock",
    "lock_teachers",
    "materialize",
    "open_answering",
    "open_teacher",
    "plan_addition",
    "remove_teacher",
    "verify",
]
