"""Reports of evaluations: JSON first, then tables, then one picture."""

from kdkit.core.evaluation.report.report import EvaluationReport, WrittenReport, write_report
from kdkit.core.evaluation.report.sections import Section, Table, html_table, to_html, to_text

__all__ = [
    "EvaluationReport",
    "Section",
    "Table",
    "WrittenReport",
    "html_table",
    "to_html",
    "to_text",
    "write_report",
]
