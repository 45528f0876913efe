"""Where the features of a version's student are cached."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import kdkit
from kdkit.core.contracts import ModelFeatures
from kdkit.core.evaluation.feature_cache import CachedFeatures
from kdkit.core.project.versions import Version

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.project.project import Project

FEATURES = "evaluation/features"
"""Folder in a project's state, which people may delete."""
KINDS = ("cpu", "cuda", "mps", "xpu")
"""Kinds of devices whose caches are looked for."""


def student_cache(
    project: Project,
    version: Version,
    table: SampleIndex,
    device: str | None,
    open_model: Callable[[], ModelFeatures],
) -> CachedFeatures:
    """The cached features of a version's student on a kind of device.

    Args:
        device: such as ``cuda:1``; None for the first kind that has a cache.
        open_model: called for what is not cached.

    Raises:
        KdkitError: no plugin provides the student's family.
    """
    family = project.catalogue.get("student", version.lineage.student.family)

    def place(kind: str) -> tuple[Path, str]:
        parts = (version.manifest.student_digest, kind, kdkit.__version__, family.qualified, family.version)
        fingerprint = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        return project.state / FEATURES / fingerprint[:16], fingerprint

    kinds = KINDS if device is None else (device.partition(":")[0],)
    folder, fingerprint = next((found for found in map(place, kinds) if found[0].is_dir()), place(kinds[0]))
    return CachedFeatures(version.name, folder, fingerprint, table, open_model)
