"""Results of the commands about benchmark suites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdkit.core.base.result import ResultRows, Section, Table

if TYPE_CHECKING:
    from kdkit.core.evaluation.suites.place import SuiteStatus


@dataclass(frozen=True)
class SuiteRow:
    """A suite; ``datasets`` is their number."""

    name: str
    summary: str
    datasets: int
    provider: str


class SuiteList(ResultRows[SuiteRow]):
    """The suites of all plugins."""

    def sections(self) -> list[Section]:
        """One row per suite."""
        cells = [(row.name, row.summary, str(row.datasets), row.provider) for row in self.rows]
        return [
            Table(("name", "summary", "data sets", "provider"), cells, "llrl"),
            "",
            "kdkit suites show NAME lists them",
        ]


def suites() -> SuiteList:
    """The benchmark suites that :meth:`kdkit.Project.evaluate` can take.

    Example:
        >>> [row.name for row in suites() if row.provider == "kdkit"]
        ['medmnist', 'mmkd']
    """
    from kdkit.core.evaluation.suites.definition import load_suite
    from kdkit.core.project.project import Project

    catalogue = Project.catalogue_at()
    rows = (
        SuiteRow(e.spec.name, e.spec.summary, len(load_suite(e.qualified, catalogue).datasets), e.provider)
        for e in catalogue.entries("suite")
    )
    return SuiteList(tuple(rows))


def show_suite(name: str, *, datasets: Sequence[str] = (), data: Path | str = "suites") -> SuiteStatus:
    """Which data sets of a suite are present, and how to place the others.

    Args:
        name: of the suite.
        datasets: only these.
        data: folder of the data sets.

    Raises:
        KdkitError: an unknown suite or data set, or a mistake in its file.

    Example:
        >>> [item.status for item in show_suite("medmnist", datasets=["pathmnist"]).placed]
        ['missing']
    """
    from kdkit.core.evaluation.suites.definition import chosen, load_suite
    from kdkit.core.evaluation.suites.place import SuiteStatus, locate
    from kdkit.core.project.project import Project

    suite, folder = load_suite(name, Project.catalogue_at()), Path(data)
    return SuiteStatus(name, suite.summary, folder, locate(chosen(suite, tuple(datasets)), folder))
