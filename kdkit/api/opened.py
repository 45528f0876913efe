"""What the parts of :class:`kdkit.Project` share: a folder, and how progress is shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kdkit.api.reporter import Lines

if TYPE_CHECKING:
    from kdkit.core.contracts import Reporter
    from kdkit.core.project.project import Project


@dataclass(frozen=True, init=False)
class OpenedProject:
    """The folder of a project; every method reads its files anew."""

    root: Path
    reporter: Reporter = field(repr=False, compare=False)

    def __init__(self, folder: str | Path = ".", *, reporter: Reporter | None = None) -> None:
        from kdkit.core.project.project import Project

        object.__setattr__(self, "root", Project.find(folder).root)
        object.__setattr__(self, "reporter", reporter or Lines())

    def _open(self) -> Project:
        """Registry, lock and catalogue as they are now."""
        from kdkit.core.project.project import Project

        project = Project(self.root)
        project.remove_abandoned_drafts()
        return project
