"""How far each teacher is to be believed on each domain."""

from kdkit.core.evaluation.trust.measure import measure_trust
from kdkit.core.evaluation.trust.weights import (
    Idle,
    Uncovered,
    idle_teachers,
    policy_weights,
    trusted_domains,
    uncovered_domains,
    warn_of_gaps,
)

__all__ = [
    "Idle",
    "Uncovered",
    "idle_teachers",
    "measure_trust",
    "policy_weights",
    "trusted_domains",
    "uncovered_domains",
    "warn_of_gaps",
]
