"""What people read: JSON first, then a table, then one picture."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.base.atomic import write_atomically

if TYPE_CHECKING:
    from kdkit.core.evaluation.project import Findings
    from kdkit.core.project.project import Project


def write_report(project: Project, findings: Findings) -> dict[str, Any]:
    """Write ``reports/evaluation-<version>-<split>.json`` and ``.png``; an older pair of that name is replaced.

    Returns:
        What the JSON file holds; ``file`` and ``picture.file`` are relative to the project.
    """
    from kdkit.core.evaluation.report.picture import draw

    stem = f"evaluation-{findings.version}-{findings.evaluation.split}"
    picture, file = project.reports / f"{stem}.png", project.reports / f"{stem}.json"
    alt = draw(findings, picture)
    content = findings_json(findings) | {
        "file": str(file.relative_to(project.root)),
        "picture": {"file": str(picture.relative_to(project.root)), "alt": alt},
    }
    _write(file, json.dumps(content, allow_nan=False) + "\n")
    return content


def findings_json(findings: Findings) -> dict[str, Any]:
    """The evaluation, as :meth:`Evaluation.load` reads it, and what else was found; NaN becomes null."""
    continual = None
    if findings.continual is not None:
        figures = asdict(findings.continual)
        continual = {name: None if np.isnan(value) else value for name, value in figures.items()}
    return {
        **findings.evaluation.to_json(),
        "version": findings.version,
        "history": list(findings.history),
        "learned": findings.learned,
        "retention": None if findings.retention is None else findings.retention.to_json(),
        "continual": continual,
    }


def _write(path: Path, text: str) -> None:
    write_atomically(path, text.encode())
