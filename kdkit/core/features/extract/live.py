"""Teachers with ``signals: live``: which samples their columns hold all the same, and who cannot be one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import SPLITS
from kdkit.core.features.extract.endpoint_answers import tells_own_answers
from kdkit.core.project.registry.lock import Lock

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.project.project import Project


def to_store(table: SampleIndex, *, live: bool) -> NDArray[np.bool_]:
    """(N,) samples whose signals belong into a column: all that have an answer; of a live teacher those of the
    calibration and test splits alone, by which it is judged."""
    return ~table.unanswered & (not live or table.split_index != SPLITS.index("train"))


def live_devices(project: Project) -> dict[str, str | None]:
    """The registry's live teachers, and the device of each that has one of its own.

    Raises:
        KdkitError: when one of them only answers, or tells of its own answers alone.
    """
    lock, registry = Lock.load(project.lock_path), project.registry
    for name in registry.live:
        if name not in lock.teachers:
            continue
        silent, own = not lock.teacher(name).signals, tells_own_answers(lock.teacher(name).identity)
        if silent or own:
            raise KdkitError(
                "KD-FEAT-006",
                f"teacher '{name}' cannot be live: it "
                + ("gives no signals, it only answers" if silent else "tells of nothing but its own answers"),
                where=str(project.registry_path),
                fix="take 'signals: live' out of its entry; 'kdkit pseudo-label' lets it teach",
            )
    return {name: registry.teachers[name].device for name in registry.live}
