"""How good models are, side by side, and what an increment cost. Light: numpy alone, no torch."""

from kdkit.core.evaluation.compare import evaluate_views
from kdkit.core.evaluation.continual import Continual, continual_metrics
from kdkit.core.evaluation.evaluation import Evaluation, ModelScores
from kdkit.core.evaluation.retention import Change, Retention, TeacherRetention, retention
from kdkit.core.evaluation.views import CachedView, StudentView

__all__ = [
    "CachedView",
    "Change",
    "Continual",
    "Evaluation",
    "ModelScores",
    "Retention",
    "StudentView",
    "TeacherRetention",
    "continual_metrics",
    "evaluate_views",
    "retention",
]
