"""Reports of evaluations: JSON first, then tables, then one picture."""

from kdkit.core.evaluation.report.report import EvaluationReport
from kdkit.core.evaluation.report.sections import Section, Table, to_html, to_text
from kdkit.core.evaluation.report.write import WrittenReport, write_report

__all__ = [
    "EvaluationReport",
    "Section",
    "Table",
    "WrittenReport",
    "to_html",
    "to_text",
    "write_report",
]
