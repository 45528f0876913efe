"""Warnings of what the result of a plan will lack."""

from __future__ import annotations

from kdkit.core.contracts import Reporter
from kdkit.core.distill.plan.types import Plan
from kdkit.core.project.versions import Version, Versions


def warn_of_gaps(plan: Plan, parent: Version | None, versions: Versions, reporter: Reporter) -> None:
    """Warn of what the result will lack."""
    current = versions.current()
    if parent is None and current is not None and (plan.stage is None or plan.stage.recipe is not None):
        reporter.warn(
            f"this makes a new student from scratch and does not compare it with {current.name}; --incremental "
            f"continues {current.name}, 'kdkit rollback {current.name}' returns to it"
        )
    if parent is not None and plan.domains_without_rehearsal:
        _warn_of_forgetting(plan, parent, reporter)
    if plan.idle_losses:
        reporter.warn(
            f"{', '.join(plan.idle_losses)} cannot teach with batches of {plan.batch_size}: compared are the samples "
            "of a batch"
        )
    if plan.domains_not_judged:
        reporter.warn(
            f"the new version will not be judged on {', '.join(plan.domains_not_judged)}: no labeled (or answered) "
            "calibration samples of two classes; 'kdkit data check' counts them"
        )


def tell_of_import(parent: Version | None, reporter: Reporter) -> None:
    """Say what follows for an increment from the fact that its parent was imported."""
    if parent is None or parent.lineage.imported is None:
        return
    known = ", ".join(parent.lineage.data.known)
    compared = f"the guard compares with its scores on {known}" if known else "nor can the guard compare: not judged"
    reporter.say(f"{parent.name} was imported, so none of its training samples is replayed; {compared}")


def _warn_of_forgetting(plan: Plan, parent: Version, reporter: Reporter) -> None:
    here = [domain for domain in plan.domains_without_rehearsal if domain in plan.domains_without_teacher]
    absent = [domain for domain in plan.domains_without_rehearsal if domain not in here]
    advice = ""
    if plan.continued:
        advice = f"without --continue, 'increment' of the recipe can protect what {parent.name} knows"
    elif not plan.previous.protects:
        protects = plan.recipe.increment.without_replay.protects
        value = "the recipe's 'without_replay'" if protects else "{frozen_energy: 0.5}"
        advice = f"set 'increment.previous' of the recipe to {value}, so that {parent.name} itself protects them"
    if here and advice:
        reporter.warn(f"{parent.name} knows {', '.join(here)}, but no teacher covers them now: {advice}")
    if absent:
        reporter.warn(
            f"{parent.name} knows {', '.join(absent)}, but there are no training samples of them here; forgetting can "
            "be measured only on labeled calibration samples; "
            + (advice or f"{parent.name} itself protects them in part; --dry-run prints how")
        )
