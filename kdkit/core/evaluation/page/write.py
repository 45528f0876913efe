"""The page on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.atomic import require_place, write_atomically
from kdkit.core.base.result import Result, Section, format_size
from kdkit.core.base.system_errors import system_errors
from kdkit.core.contracts import Reporter
from kdkit.core.evaluation.page.facts import collect_facts
from kdkit.core.evaluation.page.page import absent_parts, render_page, section_titles

if TYPE_CHECKING:
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class WrittenPage(Result):
    """An HTML page on disk.

    Attributes:
        version: that it is about.
        file: its path.
        size: in bytes.
        parts: titles of its sections.
        absent: topic -> why the page lacks it, and what to do.
    """

    version: str
    file: Path
    size: int
    parts: tuple[str, ...]
    absent: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {
            "version": self.version,
            "file": str(self.file),
            "size": self.size,
            "sections": list(self.parts),
            "absent": self.absent,
        }

    def sections(self) -> list[Section]:
        """The file, then what it lacks."""
        lines: list[Section] = [f"{self.file}: {self.version}, {len(self.parts)} sections, {format_size(self.size)}"]
        return [*lines, *(f"absent: {topic}: {why}" for topic, why in self.absent.items())]


def write_page(project: Project, version: str | None, file: Path | None, reporter: Reporter) -> WrittenPage:
    """Write the page about a version, by default the current one.

    Args:
        file: by default ``reports/<version>.html`` of the project.

    Raises:
        KdkitError: no such version, or ``file`` cannot be written.
    """
    if file is not None:
        require_place(file)
    facts = collect_facts(project, version, reporter)
    content = render_page(facts).encode()
    path = project.reports / f"{facts.version}.html" if file is None else file
    with system_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    return WrittenPage(facts.version, path, len(content), section_titles(facts), absent_parts(facts))
