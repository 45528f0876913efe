"""A downloaded release, checked; and what a project keeps of it until all that comes after it has been fetched."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdkit.core.base.errors import KdkitError
from kdkit.core.project.lineage import Origin
from kdkit.core.project.registry.load import load_registry
from kdkit.core.project.registry.lock import Lock
from kdkit.core.project.registry.pinned import pinned
from kdkit.core.project.registry.schema import Registry
from kdkit.core.sharing.release.layout import LOCK, RECIPE, RECORD, REGISTRY, Record
from kdkit.core.sharing.release.pulled.plugins import Lacking, lacking_plugins
from kdkit.core.sharing.release.pulled.registry import registry_text, unpublished

if TYPE_CHECKING:
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.project.project import Project

PENDING = "pulled"
"""Below ``.kdkit`` of a project whose base or features are still to come."""
_ORIGIN = "origin.json"


@dataclass(frozen=True)
class PulledRelease:
    """A release in ``folder``: all of it, or the files that :meth:`keep` copies."""

    folder: Path
    record: Record
    origin: Origin
    registry: Registry
    lock: Lock

    @classmethod
    def read(cls, folder: Path, record: Record, origin: Origin) -> PulledRelease:
        """``record``, checked, and what lies beside it."""
        return cls(folder, record, origin, load_registry(folder / REGISTRY), Lock.load(folder / LOCK))

    @property
    def unpublished(self) -> tuple[str, ...]:
        """See :func:`unpublished`."""
        return unpublished(self.registry, self.lock)

    def lacking(self, catalogue: Catalogue) -> tuple[Lacking, ...]:
        """See :func:`lacking_plugins`; each name must come from where the release pins it to."""
        return lacking_plugins(pinned(catalogue, self.lock), self.record.lineage, self.registry, self.lock)

    def registry_text(self, with_features: Collection[str] = ()) -> str:
        """See :func:`registry_text`."""
        recipe_file = RECIPE in self.record.files
        return registry_text(
            self.registry, self.lock, self.origin, recipe_file=recipe_file, with_features=with_features
        )

    def keep(self, project: Project) -> None:
        """Remember it in a project that is being made, for a pull that is cut off once the project is there."""
        kept = project.state / PENDING
        for name in (RECORD, REGISTRY, LOCK):
            (kept / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / name, kept / name)
        (kept / _ORIGIN).write_bytes(self.origin.to_bytes())


def pending_release(project: Project) -> PulledRelease | None:
    """The release of a project whose pull was cut off; None where nothing is to come."""
    kept = project.state / PENDING
    try:
        record = Record.load(kept / RECORD)
        origin = Origin.from_bytes((kept / _ORIGIN).read_bytes())
        return PulledRelease.read(kept, record, origin)
    except (OSError, ValueError, KdkitError):
        return None


def forget_pending(project: Project) -> None:
    """Everything is there."""
    shutil.rmtree(project.state / PENDING, ignore_errors=True)
