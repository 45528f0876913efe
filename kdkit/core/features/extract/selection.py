"""Which samples a column holds: fewer for a live teacher, which computes training samples during training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import SPLITS
from kdkit.core.features.extract.endpoint_answers import only_own_answers

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.project.registry.lock import Lock
    from kdkit.core.project.registry.schema import Registry


def storable(index: SampleIndex, *, live: bool) -> NDArray[np.bool_]:
    """(N,) samples with an answer; for a live teacher only those of the calibration and test splits."""
    return ~index.unanswered & (not live or index.split_index != SPLITS.index("train"))


def live_devices(registry: Registry, lock: Lock) -> dict[str, str | None]:
    """Live teacher of the registry -> the device in its entry, if any.

    Raises:
        KdkitError: a live teacher gives no signals, or only of its own answers.
    """
    for name in registry.live:
        if name not in lock.teachers:
            continue
        silent, own = not lock.teacher(name).signals, only_own_answers(lock.teacher(name).identity)
        if silent or own:
            raise KdkitError(
                "KD-FEAT-006",
                f"teacher '{name}' cannot be live: it gives "
                + ("answers but no signals" if silent else "signals of its own answers only"),
                where="registry.yaml",
                fix="remove 'signals: live' from its entry, and let it label data with 'kdkit pseudo-label'",
            )
    return {name: registry.teachers[name].device for name in registry.live}
