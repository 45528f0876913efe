"""May this project distil from this teacher?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Reporter
from kdkit.core.project.licenses import Use, Verdict, allowed
from kdkit.core.project.registry.chosen import ChosenTeacher, chosen_teacher
from kdkit.core.project.registry.lock import LicenseSeen

if TYPE_CHECKING:
    from kdkit.core.project.project import Project


def permission(project: Project, name: str) -> Verdict:
    """Whether the project may distil from the chosen teacher ``name``, by all that is known about it."""
    locked = project.lock.teachers.get(name)
    facts = chosen_teacher(project, name).license_facts(
        locked.license if locked else None, gated=bool(locked and locked.gated)
    )
    return allowed(facts, project.registry.use)


def require_permission(
    chosen: ChosenTeacher, use: Use, reporter: Reporter, seen: LicenseSeen | None = None, *, gated: bool = False
) -> None:
    """Warn where there is doubt.

    Args:
        use: what the project declares.
        seen, gated: what the files and the Hub say, once they are here.

    Raises:
        KdkitError: with exit code 4 and the reason, where the license forbids the project's use.
    """
    verdict = allowed(chosen.license_facts(seen, gated=gated), use)
    if not verdict.allowed:
        raise KdkitError(
            "KD-TEACH-009",
            f"distilling from '{chosen.name}' is not allowed",
            where=chosen.where,
            why=verdict.reason,
            fix=verdict.fix,
            code=ExitCode.DENIED,
        )
    if verdict.warning:
        reporter.warn(f"teacher '{chosen.name}': {verdict.reason}")
