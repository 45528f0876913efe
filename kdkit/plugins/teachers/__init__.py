"""The built-in catalogue of teachers: facts of published models, in ``catalogue.json`` and ``vision.json``.

A fact that no primary source confirms is absent or named in ``notes``. The first nine are the teachers of MMKD-CLIP
(arXiv 2506.22567); eight are named in its released features, MedCLIP by a third party.
"""

from __future__ import annotations

import json
from pathlib import Path

from kdkit.core.contracts import TeacherSpec
from kdkit.core.contracts.hookspecs import hookimpl

FILES = ("catalogue.json", "vision.json")
"""Dual encoders and models that answer; then models that see images alone."""


@hookimpl
def kdkit_teachers() -> tuple[TeacherSpec, ...]:
    return tuple(
        TeacherSpec(**{"source": "", "loader": "", **fields, "domains": tuple(fields.get("domains", ()))})
        for name in FILES
        for fields in json.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
    )
