"""Evaluation: scores of models, comparison, retention and reports. Imports no torch."""

from kdkit.core.evaluation.compare import compare_models
from kdkit.core.evaluation.continual import ContinualMetrics, compute_continual_metrics
from kdkit.core.evaluation.features import StoredFeatures, StudentFeatures
from kdkit.core.evaluation.retention import Retention, measure_retention
from kdkit.core.evaluation.scores import Evaluation, ModelScores
from kdkit.core.project.lineage import DomainChange, TeacherRetention

__all__ = [
    "ContinualMetrics",
    "DomainChange",
    "Evaluation",
    "ModelScores",
    "Retention",
    "StoredFeatures",
    "StudentFeatures",
    "TeacherRetention",
    "compare_models",
    "compute_continual_metrics",
    "measure_retention",
]
