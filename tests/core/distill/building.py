"""Build what a plan trains, for a whole project."""

from __future__ import annotations

import time
from typing import Any

from kdkit.core.contracts import Reporter, Silent
from kdkit.core.distill.model.build import Build, build
from kdkit.core.distill.model.student import StudentBuilder
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.plan.types import Plan
from kdkit.core.distill.prepare import Prepared
from kdkit.core.project.project import Project
from kdkit.core.project.versions import Version


def build_plan(
    project: Project,
    plan: Plan,
    inventory: TeachingInventory,
    parent: Version | None = None,
    reporter: Reporter | None = None,
    **options: Any,
) -> Build:
    return build(
        plan,
        inventory,
        StudentBuilder.of(project, parent, plan.settings.seed),
        scratch=project.state / f"previous-version-{time.monotonic_ns()}",
        reporter=reporter or Silent(),
        **options,
    )


def build_prepared(project: Project, prepared: Prepared, **options: Any) -> Build:
    return build_plan(project, prepared.plan, prepared.inventory, prepared.student.parent, **options)
