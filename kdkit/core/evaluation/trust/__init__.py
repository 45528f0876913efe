"""Trust: accuracy of each teacher on each domain, and the weights that policies make of it."""

from kdkit.core.evaluation.trust.measure import locked_column, measure_trust
from kdkit.core.evaluation.trust.weights import (
    DomainWithoutTeacher,
    TeacherWithoutDomain,
    domains_without_teacher,
    policy_weights,
    teachers_without_domain,
    trusted_domains,
    warn_about_gaps,
)

__all__ = [
    "DomainWithoutTeacher",
    "TeacherWithoutDomain",
    "domains_without_teacher",
    "locked_column",
    "measure_trust",
    "policy_weights",
    "teachers_without_domain",
    "trusted_domains",
    "warn_about_gaps",
]
