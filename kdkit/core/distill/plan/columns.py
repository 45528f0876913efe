"""Columns of the chosen teachers, complete where that is possible; a teacher that is gone keeps what it gave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Reporter
from kdkit.core.data.prompts import all_prompts, prompt_sets
from kdkit.core.features import Column, FeatureStore
from kdkit.core.features.extract.missing import count_missing
from kdkit.core.project.registry.chosen import chosen_teacher
from kdkit.core.project.registry.lock import Lock

if TYPE_CHECKING:
    from kdkit.core.data import SampleIndex
    from kdkit.core.project.project import Project
    from kdkit.core.teachers import OpenTeacher


def complete_columns(
    project: Project,
    table: SampleIndex,
    teachers: Sequence[str],
    *,
    live: Mapping[str, OpenTeacher] | None = None,
    before: Callable[[Sequence[OpenTeacher]], None] = lambda _: None,
    device: str,
    reporter: Reporter,
) -> dict[str, Column]:
    """Teacher -> column; what is missing is extracted first, each image decoded once for all teachers.

    Columns of ``live`` teachers need no training samples; ``before`` is called with those who are going to be asked,
    if anybody is.

    A teacher whose files cannot be had any more, but whose column exists, teaches what the column holds: that
    is said as a warning.

    Raises:
        KdkitError: a teacher that is not locked, whose license forbids the project's use, or whose registry entry
            changed since it was locked; what opening and extracting raise.
    """
    store = FeatureStore(project.features)
    lock = project.lock
    for name in teachers:
        _admit(project, name, lock, reporter)
    keys = {name: lock.teacher(name).fingerprint for name in teachers}
    prompts = all_prompts(prompt_sets(project.registry, table))
    live = live or {}
    counts = {name: count_missing(store, name, keys[name], table, prompts, live=name in live) for name in teachers}
    opened = [
        teacher
        for name, count in counts.items()
        if count and (teacher := live.get(name) or _open(project, store, name, keys[name], count, reporter)) is not None
    ]
    if opened:
        from kdkit.core.features.extract.extraction import extract

        before(opened)
        own = {name: project.registry.teachers[name].device or device for name in live}
        extract(store, opened, table, prompts=prompts, live=own, device=device, reporter=reporter)
    return {name: store.column(name, keys[name]) for name in teachers}


def _admit(project: Project, name: str, lock: Lock, reporter: Reporter) -> None:
    """Cached features need the same permission, and the same registry entry, as a teacher that is opened."""
    from kdkit.core.teachers.license import require_permission
    from kdkit.core.teachers.open import require_same_choice

    chosen, locked = chosen_teacher(project, name), lock.teacher(name)
    require_same_choice(chosen, locked)
    require_permission(chosen, project.registry.use, reporter, locked.license, gated=locked.gated)


def _open(
    project: Project, store: FeatureStore, name: str, fingerprint: str, lacking: int, reporter: Reporter
) -> OpenTeacher | None:
    from kdkit.core.teachers import open_teacher

    try:
        return open_teacher(project, name, reporter=reporter)
    except KdkitError as error:
        known = any(header.fingerprint == fingerprint for header in store.headers(name))
        if error.code is not ExitCode.MISSING or not known:
            raise
        reporter.warn(
            f"teacher '{name}' cannot be opened any more ({error.headline}): {lacking} new samples and prompts go "
            "without it; it still teaches what its column holds"
        )
        return None
