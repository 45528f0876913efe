"""``kdkit distill``: make the first version of the student, or teach it what is new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdkit.cli import console
from kdkit.core.base.errors import ExitCode

if TYPE_CHECKING:
    from kdkit.core.distill.cost_estimate import Estimate
    from kdkit.core.distill.plan.types import CorrectionSchedule, Plan
    from kdkit.core.distill.promotion import Outcome
    from kdkit.core.project.lineage import CorrectionRecord


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("distill")(distill)


def distill(
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Teach the current version what is new since it was made.")
    ] = False,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Default: the recipe of registry.yaml.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same student.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan with time, disk and memory; train nothing.")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Forget an interrupted run of this plan.")] = False,
    precision: Annotated[str, typer.Option(help="no (float32) or bf16.")] = "no",
    cpu: Annotated[bool, typer.Option("--cpu", help="Stay on the CPU even if there is a GPU.")] = False,
    checkpoint_every: Annotated[float, typer.Option(metavar="SECONDS", min=0.0)] = 60.0,
    folder: console.ProjectOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Distil the trusted teachers into the student; with --incremental, only what is new.

    The result is a version (see 'kdkit versions'). An increment that loses more than the guard tolerates on a
    domain is kept aside and the command exits 1. An interrupted run goes on where it was.
    """
    from kdkit.core.distill.run import Options
    from kdkit.core.distill.run import distill as run

    options = Options(
        incremental=incremental,
        recipe=recipe,
        seed=seed,
        restart=restart,
        precision=precision,
        cpu=cpu,
        checkpoint_seconds=checkpoint_every,
    )
    project = console.project(folder)
    reporter = console.reporter()
    if not restart:
        console.resumable()
    with project.exclusive("kdkit distill"):
        if dry_run:
            from kdkit.core.distill.cost_estimate import dry_run as plan_only

            plan, estimate = plan_only(project, options, reporter)
            if not console.first_process():
                return
            data = {**plan.to_json(), "estimate": estimate.to_json()}
            console.emit(data, json=as_json, text=lambda: plan_text(plan, estimate))
            return
        outcome = run(project, options, reporter=reporter)
    if outcome is None:  # not the main process of a distributed run
        return
    console.emit(_outcome_json(outcome), json=as_json, text=lambda: outcome_text(outcome))
    if outcome.version.refused:
        raise typer.Exit(ExitCode.FOUND)


def plan_text(plan: Plan, estimate: Estimate) -> str:
    """The plan, for people."""
    rows = [
        (
            teacher.name,
            ("new" if teacher.new else "known") + (", live" if teacher.live else ""),
            teacher.samples,
            ", ".join(_weighted(domain, weight) for domain, weight in teacher.admitted.items()) or "nothing",
        )
        for teacher in plan.teachers
    ]
    lines = [
        f"Recipe {plan.recipe.name}; " + ("a new student" if plan.parent is None else f"an increment on {plan.parent}"),
        "",
        console.table(("teacher", "", "samples", "may teach (weight)"), rows, "llrl")
        if rows
        else "No loss of it reads a teacher: the student learns from the samples' own texts.",
        "",
        f"{plan.fresh} samples bring something new; {plan.replayed} are replayed beside them.",
    ]
    if plan.domains_without_teacher:
        lines.append(f"No teacher covers: {', '.join(plan.domains_without_teacher)}")
    if plan.skipped_samples:
        lines.append(f"{plan.skipped_samples} training samples skipped: no teacher covers them.")
    if plan.domains_without_rehearsal:
        lines.append(f"{plan.parent} knows, but no teacher rehearses: {', '.join(plan.domains_without_rehearsal)}")
    if plan.parent and plan.previous.weight:
        lines.append(
            f"{plan.parent} is used as an extra teacher ({plan.previous.loss}, weight {plan.previous.weight:g})"
        )
    if plan.correction is not None:
        lines.append(_rounds_text(plan.correction))
    settings = plan.settings
    return "\n".join(
        [
            *lines,
            f"{settings.steps} steps of {plan.batch_size} samples, learning rate {settings.lr:g}, seed {settings.seed}",
            "",
            estimate.text(),
        ]
    )


def _rounds_text(rounds: CorrectionSchedule) -> str:
    if not rounds.steps:
        return "The run ends before the first correction."
    shown = ", ".join(map(str, rounds.steps[:8])) + (" ..." if len(rounds.steps) > 8 else "")
    return (
        f"Corrected after step {shown}: the student answers {rounds.asked} samples each time, "
        f"{rounds.asked * len(rounds.steps)} in all; corrector: {rounds.corrector}"
    )


def _weighted(domain: str, weight: float) -> str:
    return domain if weight == 1 else f"{domain} ({weight:.2f})"


def outcome_text(outcome: Outcome) -> str:
    """What came out, for people."""
    from kdkit.core.evaluation.guard import describe_change

    version, verdict = outcome.version, outcome.verdict
    mean = outcome.evaluation.model("student").means
    auc = f", AUC {mean['auc']:.3f}" if "auc" in mean else ""
    scores = f"accuracy {100 * mean['accuracy']:.1f} %{auc} (mean over domains, calibration split)"
    corrected = version.lineage.correction
    if corrected:
        scores += f"\n{_corrected_text(corrected)}: {version.folder / corrected.file}"
    if verdict is None or verdict.promoted:
        return "\n".join([f"{version.name} is current now", scores, *_retention_lines(outcome), "next: kdkit evaluate"])
    return "\n".join(
        [
            f"{version.name} is refused: it forgets more than the guard tolerates",
            *(f"  {describe_change(change)}" for change in verdict.failed),
            f"{version.lineage.parent} stays current",
            scores,
            *_retention_lines(outcome),
            f"it is kept in {version.folder}; 'kdkit versions promote {version.name}' makes it current all the same",
        ]
    )


def _corrected_text(corrected: CorrectionRecord) -> str:
    """A corrector may have been asked, and paid, for words that were not taken."""
    text = f"{corrected.corrected} answers were corrected"
    if not corrected.fingerprint or not corrected.corrected:
        return text
    rewritten, refused = (sum(getattr(part, name) for part in corrected.rounds) for name in ("rewritten", "refused"))
    return f"{text}, {rewritten} in the words of {corrected.corrector} ({refused} of its answers were not taken)"


def _retention_lines(outcome: Outcome) -> list[str]:
    from kdkit.core.evaluation.guard import describe_change

    kept, verdict = outcome.retention, outcome.verdict
    if kept is None or verdict is None:
        return []
    lines = []
    if kept.domains:
        lines.append(f"old domains: {kept.mean:+.1f} points on average ({kept.low:+.1f} to {kept.high:+.1f})")
    if kept.worst is not None and kept.worst not in verdict.failed and kept.worst not in verdict.uncertain:
        lines.append(f"  worst: {describe_change(kept.worst)}")
    lines += [f"  beyond its tolerance, perhaps by chance: {describe_change(change)}" for change in verdict.uncertain]
    if kept.not_compared:
        lines.append(f"NOT MEASURED, for want of labeled calibration samples: {', '.join(kept.not_compared)}; ")
        lines[-1] += "whether that is forgotten, nobody knows"
    taught = [domain for domain in kept.new_domains if domain in outcome.version.lineage.data.known]
    if taught:
        lines.append(f"new domains: {', '.join(taught)}")
    return lines


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    lineage = outcome.version.lineage.to_json()
    return {
        "version": outcome.version.name,
        "promoted": not outcome.version.refused,
        "folder": str(outcome.version.folder),
        "scores": lineage["scores"],
        "retention": lineage["retention"],
        "seconds": lineage["training"]["seconds"],
    }
