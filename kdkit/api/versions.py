"""Results of the commands that list the versions of a student and choose the current one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import nan
from typing import TYPE_CHECKING, Any, Literal

from kdkit.core.base.cells import Course
from kdkit.core.base.errors import KdkitError
from kdkit.core.base.result import Result, ResultRows, Section, Table

if TYPE_CHECKING:
    from kdkit.core.project.lineage import Origin
    from kdkit.core.project.versions import Version, Versions


@dataclass(frozen=True)
class VersionRow:
    """One version of the student.

    Attributes:
        status: ``refused`` is a candidate that failed the guard; of a ``damaged`` version only the name is known.
        origin: release that it was pulled from.
        corrected: answers that were corrected during training; None without correction.
        repair: what became of a student that broke the guard as it was trained; None for others.
        accuracy: mean over domains on the calibration split; None: not judged.
        worst_change: points of the old domain that lost most against the parent.
        seconds: of training.
        problem: why a version is damaged.
        imported: its weights are those of ``init``; ``recipe`` is None then.
        domains: domain -> accuracy on the calibration split.
    """

    version: str
    status: Literal["current", "promoted", "refused", "damaged"]
    parent: str | None = None
    origin: Origin | None = None
    created: str | None = None
    recipe: str | None = None
    teachers: tuple[str, ...] = ()
    corrected: int | None = None
    repair: str | None = None
    accuracy: float | None = None
    worst_change: float | None = None
    seconds: float | None = None
    problem: str | None = None
    domains: Mapping[str, float] = field(default_factory=dict)
    imported: bool = False

    @classmethod
    def of(cls, version: Version, current: Version | None) -> VersionRow:
        """From a version's lineage."""
        try:
            lineage, earlier = version.lineage, version.earlier
        except KdkitError as error:
            return cls(version.name, "damaged", problem=error.headline)
        retention = lineage.retention
        status: Literal["promoted", "refused"] = "refused" if version.refused else "promoted"
        return cls(
            version=version.name,
            status="current" if current and current.name == version.name else status,
            parent=lineage.parent,
            origin=earlier.origin if earlier else None,
            created=lineage.created,
            recipe=None if lineage.imported else lineage.recipe.name,
            teachers=tuple(teacher.name for teacher in lineage.teachers),
            corrected=lineage.correction.corrected if lineage.correction else None,
            repair=lineage.repair.describe(lineage.parent) if lineage.repair else None,
            accuracy=lineage.scores.mean.get("accuracy"),
            worst_change=retention.worst.points if retention and retention.worst else None,
            seconds=lineage.seconds,
            domains={d: x["accuracy"] for d, x in lineage.scores.domains.items() if "accuracy" in x},
            imported=lineage.imported is not None,
        )


class VersionList(ResultRows[VersionRow]):
    """Versions and refused candidates, oldest first."""

    @classmethod
    def of(cls, versions: Versions) -> VersionList:
        """All of a project."""
        current = versions.current()
        names = sorted([*versions.names(), *versions.candidates()], key=lambda name: int(name[1:]))
        return cls(tuple(VersionRow.of(versions.get(name), current) for name in names))

    def sections(self) -> list[Section]:
        """One row per version."""
        if not self.rows:
            return ["no version yet: kdkit distill, or kdkit import-student to keep one that you have"]
        headers = ("version", "status", "parent", "recipe", "teachers", "accuracy", "worst change", "seconds")
        cells = [
            (
                row.version,
                row.status,
                f"from {row.origin.repository}" if row.origin else row.parent or "-",
                "imported" if row.imported else row.recipe or "-",
                ", ".join(row.teachers) or "-",
                _accuracy_cell(row),
                "-" if row.worst_change is None else f"{row.worst_change:+.1f} points",
                "-" if row.seconds is None else f"{row.seconds:.0f}",
            )
            for row in self.rows
        ]
        return [
            Table(headers, cells, "lllllrrr"),
            "",
            "accuracy: mean over domains, calibration split; worst change: of the old domain that lost most",
            *self._retention(),
            *(
                f"{r.version}: {r.corrected} answers corrected in training"
                for r in self.rows
                if r.corrected is not None
            ),
            *(f"{r.version}: {r.repair}" for r in self.rows if r.repair),
            *(f"{r.version} is damaged: {r.problem}" for r in self.rows if r.problem),
        ]

    def _retention(self) -> list[Section]:
        """The accuracy of each domain over the versions that led to the current one."""
        by_name = {row.version: row for row in self.rows}
        last = next((row for row in self.rows if row.status == "current"), None)
        chain = list[VersionRow]()
        while last is not None and last not in chain:
            chain.insert(0, last)
            last = by_name.get(last.parent or "")
        if len(chain) < 2:
            return []
        cells = [
            (
                domain,
                Course([100 * row.domains.get(domain, nan) for row in chain]),
                f"{100 * chain[-1].domains[domain]:.1f}",
                _signed(_change(chain, domain)),
            )
            for domain in chain[-1].domains
        ]
        names = [row.version for row in chain]
        headers = ("domain", " ".join(names), f"{names[-1]}, %", f"points since {names[-2]}")
        return ["", "Accuracy of each domain, calibration split", Table(headers, cells, "llrr"), ""]


def _change(chain: Sequence[VersionRow], domain: str) -> float | None:
    """Points since the version before the last."""
    before = chain[-2].domains.get(domain)
    return None if before is None else 100 * (chain[-1].domains[domain] - before)


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"


def _accuracy_cell(row: VersionRow) -> str:
    if row.accuracy is None:
        return "-" if row.problem else "not judged"
    return f"{100 * row.accuracy:.1f} %"


@dataclass(frozen=True)
class CurrentVersion(Result):
    """The version that is current now."""

    version: str

    def to_json(self) -> dict[str, Any]:
        """``version``."""
        return asdict(self)

    def sections(self) -> list[Section]:
        """One line."""
        return [f"{self.version} is current now"]
