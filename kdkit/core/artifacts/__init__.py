"""A teacher's files, here and verified; a teacher, loaded; teachers added and removed."""

from kdkit.core.artifacts.admit import Addition, add_teacher, check_lock, lock_teachers, plan_addition, remove_teacher
from kdkit.core.artifacts.fetch import Materialised
from kdkit.core.artifacts.opened import OpenTeacher, materialise, open_answering, open_teacher, verify
from kdkit.core.artifacts.permission import permission

__all__ = [
    "Addition",
    "Materialised",
    "OpenTeacher",
    "add_teacher",
    "check_lock",
    "lock_teachers",
    "materialise",
    "open_answering",
    "open_teacher",
    "permission",
    "plan_addition",
    "remove_teacher",
    "verify",
]
