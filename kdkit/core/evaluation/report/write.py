"""A report on disk: a JSON file and a picture."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.json_record import with_checksum
from kdkit.core.base.result import Result, Section
from kdkit.core.base.system_errors import optional_write
from kdkit.core.evaluation.report.report import EvaluationReport
from kdkit.core.evaluation.scores import SUITE


@dataclass(frozen=True)
class WrittenReport(Result):
    """A report on disk.

    Attributes:
        report: its content.
        file, picture: the JSON file and the PNG, relative to the project.
        alt: the picture in words.
        saved: False if the files could not be written.
    """

    report: EvaluationReport
    file: Path
    picture: Path
    alt: str
    saved: bool = True

    def to_json(self) -> dict[str, Any]:
        """The report's JSON with the paths of both files, null without files."""
        file, picture = (path.as_posix() if self.saved else None for path in (self.file, self.picture))
        return self.report.to_json() | {"file": file, "picture": {"file": picture, "alt": self.alt}}

    def sections(self) -> list[Section]:
        """Those of the report."""
        return self.report.sections()


def write_report(reports: Path, report: EvaluationReport) -> WrittenReport:
    """Write ``evaluation-<version>-<split>.json`` and ``.png`` to the project's folder of reports.

    The names end in ``-<task>`` for another task than that of the student's family, then in ``-suite-<name>`` for a
    suite. An older pair of that name is replaced. On a full or read-only disk the report is returned without files.
    """
    from kdkit.core.evaluation.report.picture import draw  # imports matplotlib

    stem = f"evaluation-{report.version}-{report.evaluation.split}"
    if not report.own_task:
        stem += f"-{report.evaluation.settings['task'].replace(':', '-')}"
    if suite := report.evaluation.settings.get(SUITE):
        stem += f"-suite-{suite}"
    picture, file = reports / f"{stem}.png", reports / f"{stem}.json"
    written = WrittenReport(report, file.relative_to(reports.parent), picture.relative_to(reports.parent), "")
    saved = False
    with optional_write("the report"):
        written = replace(written, alt=draw(report, picture))
        write_atomically(file, (json.dumps(with_checksum(written.to_json()), allow_nan=False) + "\n").encode())
        saved = True
    return replace(written, saved=saved)
