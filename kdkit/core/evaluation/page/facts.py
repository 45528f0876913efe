"""What the page is about: the version's lineages, its stored evaluations, and single samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Reporter
from kdkit.core.evaluation.answering.gate_file import Gate, read_gates
from kdkit.core.evaluation.page.samples import SampleFacts, look_at_samples
from kdkit.core.evaluation.report.report import EvaluationReport
from kdkit.core.evaluation.scores import SUITE
from kdkit.core.project.lineage import Lineage
from kdkit.core.project.versions import Version, Versions

if TYPE_CHECKING:
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class PageFacts:
    """Everything that the page shows.

    Attributes:
        project: name of its folder.
        version: the page is about it.
        status: current, promoted or refused.
        reports: evaluations of exactly this version, that of the family's task on the test split first.
        lineages: of the ancestors that are known and of the version, oldest first.
        samples: predictions and examples; None if they cannot be had.
        gates: where one of several answers is chosen.
        absent: topic -> why the page lacks it, and what to do.
    """

    project: str
    version: str
    status: str
    reports: tuple[EvaluationReport, ...]
    lineages: tuple[Lineage, ...]
    samples: SampleFacts | None = None
    gates: tuple[Gate, ...] = ()
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def lineage(self) -> Lineage:
        return self.lineages[-1]

    @property
    def main(self) -> EvaluationReport | None:
        """The evaluation that the summary shows."""
        return self.reports[0] if self.reports else None


def collect_facts(project: Project, name: str | None, reporter: Reporter) -> PageFacts:
    """Read what is known about a version, by default the current one. Nothing is encoded or trained.

    Raises:
        KdkitError: no such version, or a damaged one.
    """
    versions = Versions(project)
    version = versions.get(name)
    absent: dict[str, str] = {}
    reports = _reports(project.reports, version, absent)
    current = versions.current()
    status = "current" if current and current.name == version.name else "promoted"
    samples = None
    if reports:
        samples = look_at_samples(project, versions.ancestry(version), reports, absent, reporter)
    return PageFacts(
        project=project.root.resolve().name,
        version=version.name,
        status="refused by the guard" if version.refused else status,
        reports=reports,
        lineages=versions.history(version),
        samples=samples,
        gates=tuple(read_gates(version.folder).values()),
        absent=absent,
    )


def _reports(folder: Path, version: Version, absent: dict[str, str]) -> tuple[EvaluationReport, ...]:
    """The readable reports of exactly these weights."""
    found, command = list[EvaluationReport](), f"kdkit evaluate {version.name}"
    for path in sorted(folder.glob(f"evaluation-{version.name}-*.json")):
        try:
            report = EvaluationReport.load(path)
        except KdkitError as error:
            absent[f"The evaluation in {path.name}"] = f"{error.what}: {error.why}. '{command}' makes it again."
            continue
        if report.version != version.name or report.weights.get(version.name) != version.manifest.student_digest:
            absent[f"The evaluation in {path.name}"] = f"It is of other weights. '{command}' makes it again."
        else:
            found.append(report)
    if not found:
        absent["Scores"] = f"This version has no stored evaluation: run '{command}'."
    return tuple(sorted(found, key=_order))


def _order(report: EvaluationReport) -> tuple[bool, bool, int, str]:
    splits: Sequence[str] = ("test", "calibration", "train")
    return (
        SUITE in report.evaluation.settings,
        not report.own_task,
        splits.index(report.evaluation.split),
        str(report.evaluation.settings.get("task", "")),
    )
