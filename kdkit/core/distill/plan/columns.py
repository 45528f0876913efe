"""The teachers' columns of a run: missing rows are extracted; a teacher whose files are gone keeps its stored rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Reporter
from kdkit.core.data.prompts import project_prompts
from kdkit.core.distill.plan.joint_extraction import compares_blocks, extract_jointly
from kdkit.core.features import Column, FeatureStore
from kdkit.core.features.extract.extraction import LIVE_FIX, usable_device
from kdkit.core.features.extract.missing import find_missing, live_devices, without_imported
from kdkit.core.features.extract.unreadable import report_unreadable
from kdkit.core.project.registry.chosen import chosen_teacher
from kdkit.core.project.registry.lock import Lock
from kdkit.core.teachers import OpenTeacher, open_teacher
from kdkit.core.teachers.open import require_same_choice

if TYPE_CHECKING:
    import torch

    from kdkit.core.data import SampleIndex
    from kdkit.core.project.project import Project
    from kdkit.core.project.registry.schema import Registry


def complete_columns(
    project: Project,
    store: FeatureStore,
    index: SampleIndex,
    teachers: Sequence[str],
    *,
    live: Mapping[str, OpenTeacher],
    before: Callable[[Sequence[OpenTeacher]], None],
    device: str,
    reporter: Reporter,
) -> dict[str, Column]:
    """Teacher -> column, after an extraction that decodes each image once for all teachers.

    A teacher whose files are gone teaches what its column holds; that is a warning.

    Args:
        live: teachers whose columns need no training samples.
        before: called with the teachers that an extraction needs, before it starts.

    Raises:
        KdkitError: a teacher that is not locked, whose license forbids the project's use, or whose registry entry
            changed since it was locked; what opening and extracting raise.
    """
    lock = project.lock
    for name in teachers:
        _require_permission(project, name, lock, reporter)
    fingerprints = {name: lock.teacher(name).fingerprint for name in teachers}
    prompts = project_prompts(project.registry, index)
    missing = find_missing(store, fingerprints, index, prompts, live=live, check=compares_blocks(), reporter=reporter)
    missing = without_imported(missing, lock, index, prompts, reporter)
    opened: list[OpenTeacher] = []
    for name, count in missing.counts.items():
        teacher = live.get(name) or _open(project, store, name, fingerprints[name], count, reporter)
        opened += [teacher] if teacher is not None else []
    if opened:
        before(opened)
        extract_jointly(project, opened, index, missing, device=device, reporter=reporter)
    columns = {name: store.column(name, fingerprint) for name, fingerprint in fingerprints.items()}
    report_unreadable(columns.values(), index, reporter)
    return columns


def _require_permission(project: Project, name: str, lock: Lock, reporter: Reporter) -> None:
    """Cached features need the same permission, and the same registry entry, as an opened teacher."""
    from kdkit.core.teachers.license import require_permission

    chosen, locked = chosen_teacher(project, name), lock.teacher(name)
    require_same_choice(chosen, locked)
    require_permission(chosen, project.registry.use, reporter, locked.license, gated=locked.gated)


def _open(
    project: Project, store: FeatureStore, name: str, fingerprint: str, missing: int, reporter: Reporter
) -> OpenTeacher | None:
    try:
        return open_teacher(project, name, reporter=reporter)
    except KdkitError as error:
        stored = any(header.fingerprint == fingerprint for header in store.headers(name))
        if error.code is not ExitCode.MISSING or not stored:
            raise
        reporter.warn(
            f"teacher '{name}' cannot be opened any more ({error.headline}): it teaches the samples of its column, "
            f"without {missing} new samples and prompts"
        )
        return None


def open_live(project: Project, teachers: Sequence[str], *, device: str, reporter: Reporter) -> dict[str, OpenTeacher]:
    """Open those of ``teachers`` that are live.

    Args:
        device: of the student.

    Raises:
        KdkitError: a device that cannot be used, a teacher without signals or without its files, and what opening
            raises.
    """
    names = [name for name in live_devices(project.registry, project.lock) if name in teachers]
    for name in names:
        where = live_device(project.registry, name, device)
        offload = ", offloaded to the CPU between uses" if project.registry.teachers[name].offload else ""
        reporter.say(f"{name}: live on {where}{offload}")
    opened = {}
    for name in names:
        try:
            opened[name] = open_teacher(project, name, reporter=reporter)
        except KdkitError as error:
            if error.code is not ExitCode.MISSING:
                raise
            raise KdkitError(
                "KD-DIST-016",
                f"teacher '{name}' is live and cannot be opened: {error.what}",
                where=error.where,
                why=error.why,
                fix="restore its files, or remove 'signals: live' from its entry: its column then teaches",
                code=error.code,
            ) from error
    return opened


def live_device(registry: Registry, name: str, default: str) -> torch.device:
    """The device of a live teacher: that of its entry, or ``default``."""
    return usable_device(registry.teachers[name].device or default, LIVE_FIX.format(name))
