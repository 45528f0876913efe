"""Reports of evaluations: JSON first, then tables, then one picture."""

from kdkit.core.evaluation.report.report import EvaluationReport
from kdkit.core.evaluation.report.write import WrittenReport, write_report

__all__ = [
    "EvaluationReport",
    "WrittenReport",
    "write_report",
]
