"""What the catalogue knows about one teacher, with sources."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kdkit.core.base.result import Result, Section, Table
from kdkit.core.contracts import FactSource, TeacherSpec, known_facts, sources_of

if TYPE_CHECKING:
    from kdkit.core.project.project import Project
    from kdkit.core.project.registry.lock import LockedTeacher


@dataclass(frozen=True)
class TeacherSheet(Result):
    """The facts about one teacher.

    Attributes:
        spec: from the catalogue.
        provider: the distribution that declares it.
        locked: what the probe measured, if the project has added it.
    """

    spec: TeacherSpec
    provider: str
    locked: LockedTeacher | None

    def to_json(self) -> dict[str, Any]:
        """All fields of the spec, ``provider``, and ``measured``: the widths and settings of the locked teacher."""
        locked = self.locked
        measured = {"dims": locked.dims, **locked.identity} if locked else None
        return {
            **asdict(self.spec),
            "options": dict(self.spec.options),
            "provider": self.provider,
            "measured": measured,
        }

    def sections(self) -> list[Section]:
        """Facts with the numbers of their sources, the sources, then remarks."""
        spec, sources = self.spec, sources_of(self.spec)
        numbers: dict[str, str] = {}
        rows = []
        for name, value in self._facts():
            places = [numbers.setdefault(_place(found), f"[{len(numbers) + 1}]") for found in sources.get(name, ())]
            rows.append((name.replace("_", " "), _show(value), " ".join(places)))
        listed = [f"{number} {place}" for place, number in numbers.items()]
        remarks = {
            "cannot be added by its name": spec.unavailable,
            "what would change that": spec.remedy,
            "notes": spec.notes,
            "verified": spec.verified or "nothing was run with its weights",
            "checked": spec.checked,
            "provided by": self.provider,
        }
        if self.locked:
            settings = "; ".join(f"{key}: {value}" for key, value in self.locked.identity.items())
            remarks["measured here"] = f"{_show(self.locked.dims)}; {settings}"
        lines = [f"{key}: {value}" for key, value in remarks.items() if value]
        return [f"{spec.name}: {spec.summary}", "", Table(("fact", "value", "from"), rows), "", *listed, "", *lines]

    def _facts(self) -> list[tuple[str, Any]]:
        spec = self.spec
        place = {"source": spec.source, "loader": spec.loader, "options": dict(spec.options)}
        head = [(name, value) for name, value in place.items() if value]
        return [("kind", spec.kind), *head, *known_facts(spec).items(), ("distillation", spec.distillation)]


def teacher_sheet(name: str, project: Project | None = None) -> TeacherSheet:
    """The facts about a teacher of the catalogue.

    Args:
        name: or ``distribution:name``.
        project: its plugins count, and what it has locked.

    Raises:
        KdkitError: no such teacher (did you mean).

    Example:
        >>> teacher_sheet("biomedclip").spec.context_length
        256
    """
    from kdkit.core.plugin_system.discovery import load_catalogue

    entry = (project.catalogue if project else load_catalogue()).get("teacher", name)
    locked = project.lock.teachers.get(entry.spec.name) if project else None
    return TeacherSheet(entry.spec, f"{entry.provider} {entry.version}", locked)


def _show(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}" if value >= 10_000 else str(value)
        case tuple() | list():
            return ", ".join(map(str, value))
        case dict():
            return ", ".join(f"{key} {_show(item)}" for key, item in value.items())
    return str(value)


def _place(source: FactSource) -> str:
    return source.source if source.verified else f"{source.source} (not verified)"
