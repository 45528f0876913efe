"""The built-in catalogue of teachers: facts of published models, nothing that is loaded.

A fact that could not be confirmed in a primary source is None, ``unknown`` or named in ``notes``.
"""

from __future__ import annotations

from kdkit.core.contracts import TeacherSpec
from kdkit.core.contracts.hookspecs import hookimpl
from kdkit.plugins.teachers import eye, mmkd, pathology, radiology, skin, vision_language


@hookimpl
def kdkit_teachers() -> tuple[TeacherSpec, ...]:
    return (
        *mmkd.TEACHERS,
        *pathology.TEACHERS,
        *radiology.TEACHERS,
        *eye.TEACHERS,
        *skin.TEACHERS,
        *vision_language.TEACHERS,
    )
