"""From a version to the runs that explain it: its recipe, student, teachers and training samples, as they are today."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.contracts import SPLITS, Reporter
from kdkit.core.data import SampleIndex, load_index
from kdkit.core.distill.checked_inventory import checked_inventory, measurable_domains
from kdkit.core.distill.explain.runs import (
    COMMAND,
    ExplainOptions,
    ExplanationPlan,
    ExplanationRun,
    PreparedExplanation,
)
from kdkit.core.distill.model.student import StudentBuilder, student_facts
from kdkit.core.distill.plan.ablation import KnowledgeSource, find_sources, shortened, without_source
from kdkit.core.distill.plan.checks import idle_losses
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.plan.plan import make_plan
from kdkit.core.distill.plan.types import Plan
from kdkit.core.distill.trials.trial import PlannedTraining, TrialOptions, digest_of
from kdkit.core.evaluation.evaluator import FeatureEvaluator, make_evaluator
from kdkit.core.evaluation.leave_one_out import Explanation
from kdkit.core.features.imports.record import source_of
from kdkit.core.project.registry.schema import StudentEntry
from kdkit.core.project.versions import Version, Versions

if TYPE_CHECKING:
    from kdkit.core.project.project import Project


def plan_explanation(
    project: Project, name: str | None, options: ExplainOptions, reporter: Reporter
) -> ExplanationPlan:
    """The runs of :func:`explain` and their cost, measured on a few steps.

    Raises:
        KdkitError: as :func:`explain`.
    """
    with closing(prepare_explanation(project, name, options, reporter)) as prepared:
        return prepared.plan()


def explain(project: Project, name: str | None, options: ExplainOptions, reporter: Reporter) -> Explanation:
    """Train the runs that are not finished yet, and compare their evaluations.

    Args:
        name: of a version or candidate; by default the current one.

    Raises:
        KdkitError: no such version; sources or samples of it that the project does not have; fewer than two sources;
            no domain that can be measured; a run of several processes; another ``kdkit explain`` at work.
    """
    with closing(prepare_explanation(project, name, options, reporter)) as prepared:
        if prepared.finished < len(prepared.runs):
            reporter.say(prepared.plan().course())
            with prepared.exclusive():
                prepared.finish_all()
        return prepared.result()


def prepare_explanation(
    project: Project, name: str | None, options: ExplainOptions, reporter: Reporter
) -> PreparedExplanation:
    """Plan all runs; extract what a teacher lacks, with the project locked.

    Raises:
        KdkitError: as :func:`explain`.
    """
    _check_options(options)
    version = Versions(project).get(name)
    lineage = version.lineage
    if lineage.imported is not None:
        raise KdkitError(
            "KD-DIST-492",
            f"{version.name} was imported: no teacher and no sample taught it, so there is nothing to explain",
            where=str(version.folder),
            fix="explain a version that learned from teachers: 'kdkit versions' lists them",
        )
    accelerator = TrialOptions(options.cpu, lineage.training.machine.precision).accelerator(COMMAND)
    if lineage.recipe.stages:
        raise KdkitError(
            "KD-DIST-362",
            f"the recipe of {version.name} has stages, which 'kdkit explain' cannot repeat yet",
            where=f"recipe {lineage.recipe.name}",
            fix="explain a version that was made with one of its stages alone: kdkit distill --stage NUMBER",
        )
    _require_domains(version, options)
    project = _as_of(project, version, reporter)
    index = _known_part(load_index(project, reporter), version, reporter)
    recipe = lineage.recipe.model_copy(update={"correction": None, "on_policy": None})
    seeds = range(lineage.training.seed, lineage.training.seed + options.seeds)
    with ExitStack() as extraction:
        inventory = checked_inventory(
            project,
            recipe,
            StudentBuilder.of(project, None, seeds[0]),
            index,
            reporter,
            str(accelerator.device),
            before=lambda: extraction.enter_context(project.exclusive("kdkit explain")),
        )
    facts = student_facts(project)
    plans = [make_plan(recipe, inventory, None, facts, seed=seed) for seed in seeds]
    idle_losses(recipe, project.catalogue, plans[0].batch_size)  # raises if no loss can teach at this batch size
    sources = _require_sources(project, version, plans[0], inventory)
    domains = _measured_domains(project, version, inventory, options, reporter)
    runs = tuple(
        _make_run(project, shortened(plan, options.length), inventory, source, str(accelerator.mixed_precision))
        for plan in plans
        for source in (None, *sources)
    )
    return PreparedExplanation(project, version, options, inventory, runs, domains, reporter)


def _check_options(options: ExplainOptions) -> None:
    """Refuse lengths and numbers of seeds that no run can have."""
    problem = "" if 0 < options.length <= 1 else f"--length is {options.length:g}"
    problem = problem or ("" if options.seeds >= 1 else f"--seeds is {options.seeds}")
    if problem:
        raise KdkitError(
            "KD-DIST-083", problem, fix="give a length above 0 and up to 1 (a share of the steps), and 1 seed or more"
        )


def _require_domains(version: Version, options: ExplainOptions) -> None:
    known = version.lineage.data.known
    for domain in options.domains:
        if domain not in known:
            raise KdkitError(
                "KD-DIST-084", f"{version.name} knows no domain '{domain}'", fix=did_you_mean(domain, known)
            )


def _as_of(project: Project, version: Version, reporter: Reporter) -> Project:
    """The project with the student, teachers and trust policy of the version.

    Raises:
        KdkitError: a teacher that taught it, or an ancestor, is not in the registry any more, or may teach nothing now.
    """
    lineage, registry = version.lineage, project.registry
    gone = [teacher for teacher in lineage.teachers if teacher.domains and teacher.name not in registry.teachers]
    if gone:
        first = gone[0]
        imported = first.source == source_of(first.name)
        again = f"features import {first.name} --from PATH" if imported else f"add-teacher {first.name}"
        raise KdkitError(
            "KD-DIST-085",
            f"{version.name} learned from {', '.join(t.name for t in gone)}, which this project does not have",
            where=str(project.registry_path),
            why="every run of the comparison but one needs it",
            fix=f"'kdkit {again}' adds it ({first.source})",
            code=ExitCode.MISSING,
        )
    names = {teacher.name: teacher.fingerprint for teacher in lineage.teachers}
    if barred := [t.name for t in lineage.teachers if t.domains and not registry.teachers[t.name].may_teach]:
        raise KdkitError(
            "KD-DIST-710",
            f"{version.name} learned from {', '.join(barred)}, which may teach nothing in this project",
            where=str(project.registry_path),
            why="every run of the comparison but one needs it",
            fix=f"remove 'domains: []' from the entry of {barred[0]}",
        )
    for name in names:
        locked = project.lock.teachers.get(name)
        if name in registry.teachers and locked is not None and locked.fingerprint != names[name]:
            reporter.warn(f"teacher '{name}' has changed since {version.name}: the runs learn from it as it is now")
    return project.with_registry(
        registry.model_copy(
            update={
                "student": StudentEntry(family=lineage.student.family, config=dict(lineage.student.config)),
                "teachers": {name: entry for name, entry in registry.teachers.items() if name in names},
                "trust": None,  # the version's recipe has the policy that was in force
            }
        )
    )


def _known_part(index: SampleIndex, version: Version, reporter: Reporter) -> SampleIndex:
    """The training samples that the version knows, with all held-out samples.

    Raises:
        KdkitError: the project has none of them.
    """
    known, train = version.known_samples(), index.split_index == SPLITS.index("train")
    mine = train & np.isin(index.digests, known)
    gone = len(known) - len(np.unique(index.digests[mine]))
    if not mine.any():
        raise KdkitError(
            "KD-DIST-086",
            f"the data of this project contain none of the {len(known)} training samples of {version.name}",
            why="the runs learn from the same samples",
            fix="name the data in registry.yaml; 'kdkit data check' counts the samples",
            code=ExitCode.MISSING,
        )
    if gone:
        reporter.warn(f"{gone} of {len(known)} training samples of {version.name} are not in the data: left out")
    if (later := train & ~mine).any():
        reporter.say(f"{int(later.sum())} training samples that {version.name} has not learned from are left out")
        return index.part(np.flatnonzero(~later))
    return index


def _require_sources(
    project: Project, version: Version, plan: Plan, inventory: TeachingInventory
) -> tuple[KnowledgeSource, ...]:
    features = isinstance(make_evaluator(project.registry, project.catalogue, inventory.index), FeatureEvaluator)
    sources = find_sources(plan, inventory, "captions" if features else "answers")
    if len(sources) < 2:
        names = ", ".join(source.name for source in sources) or "nothing"
        raise KdkitError(
            "KD-DIST-087",
            f"{version.name} has one source of knowledge ({names}): without it nothing teaches",
            why=f"recipe {plan.recipe.name} and the trust policy use no other",
            fix="'kdkit trust' shows which teacher may teach what",
        )
    return sources


def _measured_domains(
    project: Project, version: Version, inventory: TeachingInventory, options: ExplainOptions, reporter: Reporter
) -> tuple[str, ...]:
    measurable = measurable_domains(project, inventory)
    wanted = sorted(options.domains or version.lineage.data.known)
    found = tuple(domain for domain in wanted if domain in measurable)
    lacking = ", ".join(domain for domain in wanted if domain not in measurable)
    if not found:
        raise KdkitError(
            "KD-DIST-088",
            f"the runs cannot be compared on {lacking}",
            why="no labeled (or answered) calibration samples of two classes",
            fix="'kdkit data check' counts them; label some",
        )
    if lacking:
        reporter.warn(f"not compared, no labeled (or answered) calibration samples of two classes: {lacking}")
    return found


def _make_run(
    project: Project, plan: Plan, inventory: TeachingInventory, source: KnowledgeSource | None, precision: str
) -> ExplanationRun:
    used, own = plan, inventory
    if source is not None:
        used, own = without_source(plan, inventory, source, project.catalogue)
    facts = {
        "plan": plan.digest,
        "steps": plan.settings.steps,
        "losses": [loss.model_dump(mode="json") for loss in used.recipe.losses],
        "teachers": {teacher.name: dict(teacher.admitted) for teacher in used.teachers},
        "captions": dict(used.captions),
        "precision": precision,
    }
    key = digest_of(facts)
    return ExplanationRun(source, PlannedTraining(project, ((replace(used, digest=key), own),)), key)
