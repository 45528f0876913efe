"""A teacher's files, here and verified; a teacher, loaded; teachers added and removed."""

from kdkit.core.teachers.add import Addition, add_teacher, check_lock, lock_teachers, plan_addition, remove_teacher
from kdkit.core.teachers.fetch import Materialized
from kdkit.core.teachers.open import OpenTeacher, materialize, open_answering, open_teacher, verify
from kdkit.core.teachers.permission import permission

__all__ = [
    "Addition",
    "Materialized",
    "OpenTeacher",
    "add_teacher",
    "check_lock",
    "lock_teachers",
    "materialize",
    "open_answering",
    "open_teacher",
    "permission",
    "plan_addition",
    "remove_teacher",
    "verify",
]
