"""From a question to the trials that answer it: an inventory and plans for each variation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import Reporter, Silent, Split, StudentSpec
from kdkit.core.data import SampleIndex, load_index
from kdkit.core.distill.checked_inventory import checked_inventory, measurable_domains
from kdkit.core.distill.model.student import StudentBuilder, student_facts
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.prepare import StagePlanner
from kdkit.core.distill.sweep.arrival import CANNOT_TEACH, ArrivingTeachers, expected_steps
from kdkit.core.distill.sweep.clinkd import clinkd_question, measure_reranked
from kdkit.core.distill.sweep.questions import (
    held_out_question,
    imbalance_question,
    recipe_question,
    stages_question,
    teachers_question,
    trust_question,
)
from kdkit.core.distill.sweep.variation import Asked, Question, Variation
from kdkit.core.distill.trials.trial import (
    PlannedTraining,
    Training,
    Trial,
    TrialOptions,
    digest_of,
    evaluation_digest,
    measure_student,
)
from kdkit.core.evaluation.sweeps.record import SweepRecord, SweptVariation
from kdkit.core.project.recipe import Recipe, learns_alone, signals_read
from kdkit.core.project.recipe_file import load_recipe

if TYPE_CHECKING:
    from kdkit.core.project.project import Project

COMMAND = "kdkit sweep"
QUESTIONS: Mapping[str, Callable[[Asked], Question]] = {
    "recipe": recipe_question,
    "trust": trust_question,
    "teachers": teachers_question,
    "imbalance": imbalance_question,
    "held-out": held_out_question,
    "stages": stages_question,
    "clinkd": clinkd_question,
}


@dataclass(frozen=True)
class SweepOptions:
    """How to answer a question.

    Attributes:
        length: of the runs, as a share of the recipe's steps, in (0, 1].
        seeds: number of seeds, from 0.
        domains: to compare; by default all that can be measured.
        recipe: name or path; by default the registry's.
    """

    length: float = 1.0
    seeds: int = 3
    domains: tuple[str, ...] = ()
    split: Split = "calibration"
    recipe: str | None = None
    trials: TrialOptions = field(default_factory=TrialOptions)


@dataclass(frozen=True)
class PlannedSweep:
    """The record of a sweep, and its trials in the order of the record's keys.

    Attributes:
        inventories: those that are open.
    """

    record: SweepRecord
    trials: tuple[Trial, ...]
    inventories: tuple[TeachingInventory, ...]

    def close(self) -> None:
        """Release the models of live teachers."""
        for inventory in self.inventories:
            inventory.close()


def plan_sweep(
    project: Project, name: str, question: str, arguments: tuple[str, ...], options: SweepOptions, reporter: Reporter
) -> PlannedSweep:
    """Plan all runs; extract what a teacher lacks, with the project locked.

    Raises:
        KdkitError: an unknown question, key, value or domain; nothing that can be measured; what planning raises.
    """
    _check(question, options)
    accelerator = options.trials.accelerator(COMMAND)
    recipe = load_recipe(options.recipe or project.registry.recipe, project.catalogue, project.root)
    recipe = recipe.changed_by(project.registry)
    index = load_index(project, reporter)
    planner = _TrialPlanner(project, index, options, str(accelerator.device), reporter)
    asked = QUESTIONS[question](Asked(project, recipe, arguments, index, planner.inventory))
    baseline = planner.inventory(asked.variations[0])
    domains = planner.domains(baseline)
    rows = [planner.row(variation, domains) for variation in asked.variations]
    first = asked.variations[0].name
    swept = tuple(
        SweptVariation(
            name=one.name,
            values=dict(one.values),
            parts=one.parts,
            against=one.against or (first if one.name != first else ""),
            domains=tuple(d for d in one.domains if d in domains) or domains,
            steps=trials[0].training.steps if trials else 0,
            runs=tuple(trial.measurements[0].key for trial in trials),
            impossible=why,
        )
        for one, (trials, why) in zip(asked.variations, rows, strict=True)
    )
    if not swept[0].runs:
        raise KdkitError(
            "KD-DIST-392",
            f"'{first}' cannot be trained, and everything is compared with it",
            why=swept[0].impossible,
            fix="'kdkit trust' shows which teacher may teach what",
        )
    record = SweepRecord(
        name=name,
        question=question,
        arguments=arguments,
        axis=asked.axis,
        recipe=recipe.name,
        task=project.catalogue.spec(StudentSpec, project.registry.student.family).task,
        split=options.split,
        precision=options.trials.precision,
        length=options.length,
        seeds=tuple(range(options.seeds)),
        chance=_chance(baseline),
        samples=_sizes(index),
        notes=asked.notes,
        variations=swept,
        made_from=_made_from(project, recipe, baseline, options),
    )
    return PlannedSweep(record, _ordered(record, [t for trials, _ in rows for t in trials]), planner.opened)


def _check(question: str, options: SweepOptions) -> None:
    if question == "report":
        raise KdkitError(
            "KD-DIST-470", "'report' trains nothing, so there is nothing to plan", fix="leave out --dry-run"
        )
    if question not in QUESTIONS:
        raise KdkitError(
            "KD-DIST-393", f"there is no question '{question}'", fix=did_you_mean(question, [*QUESTIONS, "report"])
        )
    problem = "" if 0 < options.length <= 1 else f"--length is {options.length:g}"
    problem = problem or ("" if options.seeds >= 1 else f"--seeds is {options.seeds}")
    if problem:
        raise KdkitError(
            "KD-DIST-394", problem, fix="give a length above 0 and up to 1 (a share of the steps), and 1 seed or more"
        )


def _ordered(record: SweepRecord, trials: list[Trial]) -> tuple[Trial, ...]:
    """One trial for each student, in the order of the record, with all evaluations that variations want of it."""
    merged: dict[str, Trial] = {}
    for trial in trials:
        known = merged.get(trial.key)
        wanted = {one.key: one for one in (*(known.measurements if known else ()), *trial.measurements)}
        first = known or trial
        merged[trial.key] = Trial(first.title, first.seed, first.key, first.training, tuple(wanted.values()))
    place = {key: number for number, key in enumerate(record.keys)}
    return tuple(sorted(merged.values(), key=lambda trial: min(place[one.key] for one in trial.measurements)))


class _TrialPlanner:
    """Plans variations; inventories that are equal are made once."""

    def __init__(
        self, project: Project, index: SampleIndex, options: SweepOptions, device: str, reporter: Reporter
    ) -> None:
        self._project, self._index, self._options = project, index, options
        self._device, self._reporter = device, reporter
        self._inventories: dict[str, TeachingInventory] = {}
        self._digests: dict[int, str] = {}

    @property
    def opened(self) -> tuple[TeachingInventory, ...]:
        return tuple(self._inventories.values())

    def domains(self, inventory: TeachingInventory) -> tuple[str, ...]:
        """Those that are compared.

        Raises:
            KdkitError: an unknown one, or none that can be measured.
        """
        known, options = self._index.domains, self._options
        for domain in options.domains:
            if domain not in known:
                raise KdkitError(
                    "KD-DIST-395",
                    f"the data have no domain '{domain}'",
                    where="--domain",
                    fix=did_you_mean(domain, known),
                )
        measurable = measurable_domains(self._project, inventory, options.split)
        found = tuple(d for d in sorted(options.domains or known) if d in measurable)
        lacking = ", ".join(d for d in sorted(options.domains or known) if d not in measurable)
        why = f"no labeled (or answered) samples of two classes in the {options.split} split"
        if not found:
            raise KdkitError(
                "KD-DIST-396",
                f"the runs cannot be compared on {lacking}",
                why=why,
                fix="'kdkit data check' counts them; label some",
            )
        if lacking:
            self._reporter.warn(f"not compared, {why}: {lacking}")
        return found

    def row(self, variation: Variation, domains: tuple[str, ...]) -> tuple[list[Trial], str]:
        """One trial per seed, or why there is none."""
        if variation.impossible:
            return [], variation.impossible
        if lacking := [d for d in variation.domains if d not in domains]:
            raise KdkitError(
                "KD-DIST-397",
                f"'{lacking[0]}' cannot be measured",
                why=f"no labeled (or answered) samples of two classes in the {self._options.split} split, or --domain "
                "leaves it out",
                fix="'kdkit data check' counts them",
            )
        try:
            return [self._trial(variation, seed) for seed in range(self._options.seeds)], ""
        except KdkitError as error:
            if error.id not in CANNOT_TEACH:
                raise
            return [], f"{error.what} ({error.fix})" if error.fix else error.what

    def inventory(self, variation: Variation) -> TeachingInventory:
        """What a variation can teach with in its last stage. The first one reports what is extracted and measured."""
        return self._stage_inventories(variation)[-1]

    def _stage_inventories(self, variation: Variation) -> tuple[TeachingInventory, ...]:
        return tuple(self._stage_inventory(variation, stage) for stage in variation.recipe.in_order)

    def _stage_inventory(self, variation: Variation, recipe: Recipe) -> TeachingInventory:
        project = variation.project
        catalogue, registry = project.catalogue, project.registry.model_dump(mode="json")
        read, alone = sorted(signals_read(recipe, catalogue)), learns_alone(recipe, catalogue)
        parts = recipe.correction, recipe.on_policy
        key = digest_of([registry, recipe.trust.model_dump(mode="json"), read, alone, parts, variation.without])
        if key not in self._inventories:
            with ExitStack() as extraction:
                self._inventories[key] = checked_inventory(
                    project,
                    recipe,
                    StudentBuilder.of(project, None, 0),
                    _without(self._index, variation.without),
                    Silent() if self._inventories else self._reporter,
                    self._device,
                    before=lambda: extraction.enter_context(self._project.exclusive(COMMAND)),
                )
        return self._inventories[key]

    def _trial(self, variation: Variation, seed: int) -> Trial:
        project, options = variation.project, self._options
        inventories = self._stage_inventories(variation)
        planned = self._training(variation, inventories, seed)
        training: Training = planned
        facts: list[Any] = [planned.plan.digest, planned.steps, options.trials.precision]
        if variation.arrival:
            steps = expected_steps(variation.recipe, planned.steps, len(variation.arrival))
            training = ArrivingTeachers(
                project, variation.recipe, self._index, variation.arrival, seed, options.length, steps
            )
            trust = inventories[-1].trust  # of some of the teachers it decides otherwise than of all
            measured_trust = [values.tolist() for values in (trust.accuracy, trust.lower, trust.upper)]
            facts += [list(variation.arrival), options.length, measured_trust]
        # Classes of training samples that are left out stay prompts, as in the run that it is compared with.
        scored = self.inventory(replace(variation, without=())) if variation.without else inventories[-1]
        key, evaluated = digest_of(facts), self._evaluated(scored)
        if variation.reranking is None:
            measured = measure_student(project, scored, options.split, key, evaluated)
        else:
            chosen = variation.reranking
            measured = measure_reranked(self._project, scored, options.split, key, evaluated, chosen)
        return Trial(variation.name, seed, key, training, (measured,))

    def _training(self, variation: Variation, inventories: tuple[TeachingInventory, ...], seed: int) -> PlannedTraining:
        index, length = inventories[-1].index, self._options.length
        options = replace(self._options.trials.of_a_run(), seed=seed)
        planner = StagePlanner(
            variation.project, variation.recipe, inventories, index, set(index.domains), options, Silent(), length
        )
        return PlannedTraining(variation.project, tuple(zip(planner.plans(None), inventories, strict=True)))

    def _evaluated(self, inventory: TeachingInventory) -> str:
        """Digest of the samples that are scored; made once per inventory."""
        if id(inventory) not in self._digests:
            self._digests[id(inventory)] = evaluation_digest(self._project, inventory, self._options.split)
        return self._digests[id(inventory)]


def _without(index: SampleIndex, domains: tuple[str, ...]) -> SampleIndex:
    """All samples but the training samples of some domains."""
    if not domains:
        return index
    left_out = np.isin(np.arange(len(index)), index.select(split="train", domains=domains))
    return index.part(np.flatnonzero(~left_out))


def _chance(inventory: TeachingInventory) -> dict[str, float]:
    found = zip(inventory.trust.domains, inventory.trust.chance, strict=True)
    return {domain: float(value) for domain, value in found if np.isfinite(value)}


def _sizes(index: SampleIndex) -> dict[str, int]:
    numbers, counts = np.unique(index.domain_index[index.select(split="train")], return_counts=True)
    return {index.domains[number]: int(count) for number, count in zip(numbers, counts, strict=True)}


def _made_from(project: Project, recipe: Recipe, inventory: TeachingInventory, options: SweepOptions) -> dict[str, str]:
    """What jobs of one sweep must agree on."""
    registry, index, locked = project.registry, inventory.index, project.lock.teachers
    teachers = {
        f"teacher '{name}'": digest_of([locked[name].fingerprint, entry.model_dump(mode="json")])
        for name, entry in registry.teachers.items()
        if name in locked
    }
    train = index.select(split="train")
    return {
        **_flat("recipe", recipe.model_dump(mode="json", exclude={"summary", "source", "increment"})),
        **_flat("student", student_facts(project)),
        **teachers,
        "training samples": digest_of([index.digests[train].tolist(), index.domain_index[train].tolist()]),
        f"samples or prompts of the {options.split} split": evaluation_digest(project, inventory, options.split),
    }


def _flat(name: str, value: Any) -> dict[str, str]:
    """Nested values by dotted key, so that a change names its key."""
    if isinstance(value, Mapping) and value:
        return {k: v for key, below in value.items() for k, v in _flat(f"{name}.{key}", below).items()}
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return {k: v for key, below in enumerate(value) for k, v in _flat(f"{name}.{key}", below).items()}
    return {name: str(value)}
