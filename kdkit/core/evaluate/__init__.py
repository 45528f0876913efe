"""How good models are, side by side, and what an increment cost. Light: numpy alone, no torch."""

from kdkit.core.evaluate.compare import evaluate_views
from kdkit.core.evaluate.continual import Continual, continual_metrics
from kdkit.core.evaluate.evaluation import Evaluation, ModelScores
from kdkit.core.evaluate.retention import Change, Retention, TeacherRetention, retention
from kdkit.core.evaluate.views import CachedView, StudentView

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
