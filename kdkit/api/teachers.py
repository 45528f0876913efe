"""Results of the commands that choose teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.result import Result, ResultRows, Section, Table, format_size

if TYPE_CHECKING:
    from kdkit.core.project.licenses import Use
    from kdkit.core.project.project import Project
    from kdkit.core.project.registry.filters import TeacherFilter
    from kdkit.core.project.registry.listing import TeacherRow
    from kdkit.core.project.registry.lock import LockedFiles, LockedTeacher
    from kdkit.core.teachers import Addition
    from kdkit.core.teachers.forecast import Forecast
    from kdkit.core.teachers.measure import Measured

SHOWN_DOMAINS = 4


@dataclass(frozen=True)
class TeacherList(ResultRows["TeacherRow"]):
    """Teachers of the registry, then teachers that can be added.

    Attributes:
        use: what the project is for; licenses are judged by it.
        available: only those that can be added, with notes.
        hidden: number of teachers that a filter leaves out.
        choices: where a filter leaves none, what its conditions can be.
    """

    use: str
    available: bool
    hidden: int = 0
    choices: tuple[str, ...] = ()

    @classmethod
    def of(cls, project: Project | None, *, available: bool, only: TeacherFilter | None = None) -> TeacherList:
        """Teachers of a project, or without one those of the catalogue; ``only`` those that fulfill a filter."""
        from kdkit.core.plugin_system.discovery import load_catalogue
        from kdkit.core.project.registry.filters import choices
        from kdkit.core.project.registry.listing import available_rows, chosen_rows

        if project is None:
            use: Use = "research"
            rows = available_rows(load_catalogue(), use)
        else:
            chosen, use = chosen_rows(project), project.registry.use
            others = available_rows(project.catalogue, use, frozenset(row.name for row in chosen))
            rows = others if available else [*chosen, *others]
        found = tuple(row for row in rows if only is None or only.matches(row))
        offered = () if found or only is None else tuple(choices(rows, only))
        return cls(found, use, available, len(rows) - len(found), offered)

    def to_json(self) -> dict[str, Any]:
        """``use``, ``hidden`` and ``teachers``."""
        return {"use": self.use, "hidden": self.hidden, "teachers": super().to_json()}

    def sections(self) -> list[Section]:
        """One row per teacher, with notes."""
        if not self.rows:
            return ["no teacher fulfills the filter", *self.choices]
        chosen, others = ([row for row in self.rows if row.chosen is kind] for kind in (True, False))
        hidden = [f"{self.hidden} do not fulfill the filter"] if self.hidden else []
        if self.available:
            notes = (f"{row.name}: {'; '.join(filter(None, (row.reason, row.note)))}" for row in others)
            return [_teacher_table(others), "", *notes, *hidden]
        parts: list[Section] = []
        if chosen:
            parts = [f"chosen (use: {self.use})", _teacher_table(chosen), ""]
            notes_of_chosen = [f"{row.name}: {row.note}" for row in chosen if row.state == "unavailable"]
            parts += [*notes_of_chosen, ""] if notes_of_chosen else []
        ready = [row for row in others if row.state == "available"]
        parts += ["available: kdkit add-teacher NAME; facts: kdkit teachers show NAME", _teacher_table(ready), ""]
        more = len(others) - len(ready)
        return [*parts, *hidden, f"{more} more cannot be added by name: kdkit teachers --available"]


@dataclass(frozen=True)
class TeacherAddition(Result):
    """What adding a teacher would download and write.

    Attributes:
        name: of the teacher.
        source: where its files come from.
        loader: that reads them; None where the files decide.
        forecast: files with sizes, free space, license, domains.
        registry_diff: change to registry.yaml.
    """

    name: str
    source: str
    loader: str | None
    forecast: Forecast
    registry_diff: str

    @classmethod
    def of(cls, planned: Addition) -> TeacherAddition:
        """From a planned addition."""
        chosen = planned.chosen
        return cls(chosen.name, chosen.source, chosen.loader or None, planned.forecast, planned.diff)

    def to_json(self) -> dict[str, Any]:
        """All attributes."""
        plan = self.forecast
        return {
            "name": self.name,
            "source": self.source,
            "loader": self.loader,
            "bytes": plan.bytes,
            "cached": plan.cached,
            "free": plan.free,
            "license": plan.license,
            "domains": list(plan.domains),
            "files": dict(plan.sizes),
            "also": list(plan.also),
            "registry_diff": self.registry_diff,
        }

    def sections(self) -> list[Section]:
        """Files with sizes, then the diff."""
        sizes = self.forecast.sizes.items()
        files = [(name, "?" if size is None else format_size(size)) for name, size in sizes]
        return [
            "would fetch, check and lock:",
            *self.forecast.lines(),
            Table(("file", "size"), files, "lr"),
            "",
            self.registry_diff.rstrip("\n"),
        ]


@dataclass(frozen=True)
class TeacherLock(Result):
    """A teacher that was downloaded, checked and locked.

    Attributes:
        name: of the teacher.
        facts: its entry in registry.lock.
        stated_license: the license in registry.yaml, if any.
        measured: by the probe, on this machine; None if it was not probed now.
    """

    name: str
    facts: LockedTeacher
    stated_license: str | None
    measured: Measured | None = None

    def to_json(self) -> dict[str, Any]:
        """The entry of registry.lock with the name and, after a probe, ``measured``."""
        measured = {"measured": asdict(self.measured)} if self.measured else {}
        return {"name": self.name, **self.facts.model_dump(mode="json"), **measured}

    def sections(self) -> list[Section]:
        """The facts in one line, the options in a second, speed and memory in a third."""
        facts = self.facts
        dims = ", ".join(f"{signal} {dim}" for signal, dim in facts.dims.items()) or "answers, no features"
        found = f"{facts.license.name} ({facts.license.evidence})" if facts.license else "not stated in its files"
        license = f"{self.stated_license} (stated in registry.yaml); {found}" if self.stated_license else found
        commit = f" at {facts.commit[:12]}" if facts.commit else ""
        size = format_size(sum(file.size for file in facts.files.values()))
        files = f"{len(facts.files)} file{'s' * (len(facts.files) != 1)}, {size}"
        options = ", ".join(f"{key}={value}" for key, value in facts.options.items())
        return [
            f"{self.name}: {facts.source}{commit}, {files}; loader {facts.loader}; {dims}; license: {license}",
            *([f"  options: {options}"] if options else []),
            *([f"  {self.measured.cost}"] if self.measured and self.measured.cost else []),
        ]


@dataclass(frozen=True)
class LockChanges(ResultRows[TeacherLock]):
    """What ``kdkit lock`` changed.

    Attributes:
        providers: (kind, name, plugin) of other names that were locked.
        unchanged: why there was nothing to do; empty otherwise.
        initial_weights: models that the student starts from.
    """

    providers: tuple[tuple[str, str, str], ...]
    unchanged: str
    initial_weights: Mapping[str, LockedFiles]

    def to_json(self) -> dict[str, Any]:
        """``teachers``, ``initial_weights`` and ``providers``."""
        return {
            "teachers": [row.to_json() for row in self.rows],
            "initial_weights": {name: facts.model_dump(mode="json") for name, facts in self.initial_weights.items()},
            "providers": [{"kind": kind, "name": name, "provider": plugin} for kind, name, plugin in self.providers],
        }

    def sections(self) -> list[Section]:
        """One line per change."""
        lines: list[Section] = [line for row in self.rows for line in row.sections()]
        lines += [self.unchanged] if self.unchanged else []
        for name, facts in self.initial_weights.items():
            size = format_size(sum(file.size for file in facts.files.values()))
            lines.append(f"{name}: locked, {size}; the student starts from it")
        return lines + [f"{kind} '{name}': from {plugin}" for kind, name, plugin in self.providers]


@dataclass(frozen=True)
class LockCheck(Result):
    """Differences between registry.yaml, registry.lock and the files of the teachers."""

    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether all agree."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """``ok`` and ``problems``."""
        return {"ok": self.ok, "problems": list(self.problems)}

    def sections(self) -> list[Section]:
        """One line per problem, then their number."""
        return [*self.problems, f"{len(self.problems)} problem{'s' * (len(self.problems) != 1)}"]


@dataclass(frozen=True)
class RemovedTeacher(Result):
    """A teacher that was removed from registry.yaml and registry.lock.

    Attributes:
        name: of the teacher.
        features: its column in the feature store, which stays.
    """

    name: str
    features: Path

    def to_json(self) -> dict[str, Any]:
        """All attributes."""
        return {"removed": self.name, "features": self.features}

    def sections(self) -> list[Section]:
        """One line."""
        return [f"removed '{self.name}'; its features stay in {self.features}"]


def _teacher_table(rows: Sequence[TeacherRow]) -> Table:
    cells = [
        (
            row.name,
            row.state,
            "/".join("?" if dim is None else str(dim) for dim in dict.fromkeys(row.dims.values())) or "?",
            shorten(row.domains, SHOWN_DOMAINS),
            row.license,
            row.distillation,
            row.summary or row.source,
        )
        for row in rows
    ]
    return Table(("teacher", "state", "width", "domains", "license", "distillation", "what"), cells, "llrllll")


def shorten(names: Sequence[str], at_most: int) -> str:
    """The first names and the number of the others."""
    more = len(names) - at_most
    return (", ".join(names[:at_most]) + (f", {more} more" if more > 0 else "")) or "-"
