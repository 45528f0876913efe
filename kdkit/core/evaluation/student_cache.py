"""Where the features and answers of a version's student are cached."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import kdkit
from kdkit.core.base.journal import Journal
from kdkit.core.contracts import Decoding, ModelFeatures
from kdkit.core.evaluation.answers import CachedAnswers, StudentAnswers
from kdkit.core.evaluation.feature_cache import CachedFeatures
from kdkit.core.features.extract.answers import decoding_settings
from kdkit.core.project.versions import Version

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.project.project import Project

FEATURES = "evaluation/features"
"""Folder in a project's state, which people may delete."""
ANSWERS = "evaluation/answers"
"""As :data:`FEATURES`."""
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

    def place(kind: str) -> tuple[Path, str]:
        fingerprint = _fingerprint(project, version, kind)
        return project.state / FEATURES / fingerprint[:16], fingerprint

    kinds = KINDS if device is None else (device.partition(":")[0],)
    folder, fingerprint = next((found for found in map(place, kinds) if found[0].is_dir()), place(kinds[0]))
    return CachedFeatures(version.name, folder, fingerprint, table, open_model)


def answer_cache(
    project: Project, version: Version, table: SampleIndex, device: str, open_model: Callable[[], StudentAnswers]
) -> CachedAnswers:
    """The cached greedy answers of a version's student on a kind of device.

    Args:
        open_model: called for what is not cached.

    Raises:
        KdkitError: no plugin provides the student's family; a damaged journal.
    """
    fingerprint = _fingerprint(project, version, device.partition(":")[0])
    path = project.state / ANSWERS / f"{fingerprint[:16]}.jsonl"
    settings = {"student": fingerprint, "decoding": decoding_settings(Decoding())}
    return CachedAnswers(version.name, Journal(path, settings), table, open_model)


def _fingerprint(project: Project, version: Version, kind: str) -> str:
    """Of a student, and of what computes its outputs on a kind of device."""
    family = project.catalogue.get("student", version.lineage.student.family)
    parts = (version.manifest.student_digest, kind, kdkit.__version__, family.qualified, family.version)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
