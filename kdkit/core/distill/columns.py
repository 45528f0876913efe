"""Bring the columns of the chosen teachers up to date with the data, opening only teachers that lack something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdkit.core.contracts import Reporter
from kdkit.core.data.prompts import all_prompts, prompt_sets
from kdkit.core.features import Column, FeatureStore
from kdkit.core.registry.lock import Lock

if TYPE_CHECKING:
    from kdkit.core.data import SampleTable
    from kdkit.core.workspace import Workspace


def complete_columns(
    workspace: Workspace, table: SampleTable, teachers: Sequence[str], *, device: str, reporter: Reporter
) -> dict[str, Column]:
    """Teacher -> complete column; what is missing is extracted first, each image decoded once for all.

    Raises:
        KdkitError: a teacher that is not locked; what opening and extracting raise.
    """
    store = FeatureStore(workspace.features)
    lock = Lock.load(workspace.lock_path)
    keys = {name: lock.teacher(name).fingerprint for name in teachers}
    prompts = all_prompts(prompt_sets(workspace.registry, table))
    lacking = [name for name in teachers if missing_rows(store, name, keys[name], table, prompts)]
    if lacking:
        from kdkit.core.artifacts import open_teacher
        from kdkit.core.features.extraction import extract

        opened = [open_teacher(workspace, name) for name in lacking]
        extract(workspace, opened, table, prompts=prompts, device=device, reporter=reporter)
    return {name: store.column(name, keys[name]) for name in teachers}


def missing_rows(
    store: FeatureStore, teacher: str, fingerprint: str, table: SampleTable, prompts: Sequence[str]
) -> int:
    """How many samples and prompts the teacher's column lacks."""
    if all(header.fingerprint != fingerprint for header in store.headers(teacher)):
        return len(table) + len(prompts)
    column = store.column(teacher, fingerprint)
    rows = (column.locate(table) < 0) & ~(column.unreadable(table) & table.may_skip)
    return int(rows.sum()) + sum(prompt not in column.texts for prompt in prompts)
