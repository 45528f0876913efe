"""The runs of an explanation: one with all sources and one without each, for every seed; trained, evaluated, compared.

They share the student's initial weights and the batches. Only heads are drawn anew: without one teacher, the
heads of those after it start with other values. The runs make no version, and are evaluated on the calibration split.
Finished ones stay in ``.kdkit/explain``, so a killed command continues, and a repeated one trains nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.locks import file_lock
from kdkit.core.base.result import Result, Section
from kdkit.core.contracts import Reporter, StudentSpec
from kdkit.core.distill.cost_estimate import TRIAL_STEPS, measure_cost
from kdkit.core.distill.plan.ablation import KnowledgeSource
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.plan.types import Plan
from kdkit.core.distill.trials.trial import PlannedTraining, Trial, TrialOptions, evaluation_digest, measure_student
from kdkit.core.evaluation.kept_evaluations import KeptEvaluations
from kdkit.core.evaluation.leave_one_out import Explanation, measure_effects
from kdkit.core.evaluation.scores import ACCURACY, Evaluation

if TYPE_CHECKING:
    from kdkit.core.project.project import Project
    from kdkit.core.project.versions import Version

COMMAND = "kdkit explain"
FOLDER = "explain"
"""In the project's state: evaluations of finished runs."""


@dataclass(frozen=True)
class ExplainOptions:
    """How to explain a version.

    Attributes:
        length: of the runs, as a share of the steps of a run from scratch, in (0, 1].
        seeds: number of seeds; the first one is the version's.
        domains: to compare; by default all that the version knows.
        cpu: use the CPU even if there is a GPU.
        checkpoint_seconds: time between checkpoints.
    """

    length: float = 0.25
    seeds: int = 3
    domains: Sequence[str] = ()
    cpu: bool = False
    checkpoint_seconds: float = 60.0


@dataclass(frozen=True)
class ExplanationRun:
    """One run.

    Attributes:
        source: that is left out; None for the run with all of them.
        training: with the weights of this run.
        key: digest of everything that decides the student.
    """

    source: KnowledgeSource | None
    training: PlannedTraining
    key: str

    @property
    def title(self) -> str:
        return "with all sources" if self.source is None else f"without {self.source.name}"

    @property
    def plan(self) -> Plan:
        return self.training.plan

    @property
    def inventory(self) -> TeachingInventory:
        return self.training.inventory

    def trial(self, evaluated: str) -> Trial:
        """Its training, and its evaluation on the calibration split, of which ``evaluated`` is the digest."""
        measured = measure_student(self.training.project, self.inventory, "calibration", self.key, evaluated)
        return Trial(self.title, self.plan.settings.seed, self.key, self.training, (measured,))


@dataclass(frozen=True)
class ExplanationPlan(Result):
    """The runs of an explanation.

    Attributes:
        steps: of each run.
        runs: number of runs; ``finished`` of them are evaluated already.
        seconds: of training the others on this machine; 0 if there are none.
    """

    version: str
    sources: tuple[str, ...]
    domains: tuple[str, ...]
    length: float
    steps: int
    runs: int
    finished: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return dict(vars(self))

    def sections(self) -> list[Section]:
        """Sources, domains, runs, time."""
        return [
            f"Sources of {self.version}: {', '.join(self.sources)}",
            f"Domains: {', '.join(self.domains)}",
            self.course(),
        ]

    def course(self) -> str:
        """Runs, steps and time, in one line."""
        runs = f"{self.runs} runs of {self.steps} steps ({self.length:g} of {self.version}'s recipe)"
        if self.finished == self.runs:
            return f"{runs}, all of them finished"
        done = f", {self.finished} of them finished" if self.finished else ""
        return f"{runs}{done}: about {self.seconds:.0f} s of training here (measured on {TRIAL_STEPS} steps)"


@dataclass(frozen=True)
class PreparedExplanation:
    """The runs of an explanation, and what they are made from.

    Attributes:
        project: with the version's student and teachers.
        domains: those to compare.
    """

    project: Project
    version: Version
    options: ExplainOptions
    inventory: TeachingInventory
    runs: tuple[ExplanationRun, ...]
    domains: tuple[str, ...]
    reporter: Reporter

    @property
    def sources(self) -> tuple[KnowledgeSource, ...]:
        return tuple(dict.fromkeys(run.source for run in self.runs if run.source is not None))

    @property
    def finished(self) -> int:
        """Number of finished runs."""
        return sum(trial.finished(self.kept) for trial in self.trials)

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """Of the runs, in their order."""
        evaluated = evaluation_digest(self.project, self.inventory, "calibration")
        return tuple(run.trial(evaluated) for run in self.runs)

    @property
    def kept(self) -> KeptEvaluations:
        """Evaluations of finished runs."""
        return KeptEvaluations(self.project.state / FOLDER, COMMAND)

    def plan(self) -> ExplanationPlan:
        """The runs, with the time of those that are not finished."""
        pending, first = len(self.runs) - self.finished, self.runs[0]
        seconds = 0.0
        if pending:
            accelerator = self._options.accelerator(COMMAND)
            seconds = pending * measure_cost(self.project.state, first.training.prepared(), accelerator).seconds
        return ExplanationPlan(
            version=self.version.name,
            sources=tuple(source.name for source in self.sources),
            domains=self.domains,
            length=self.options.length,
            steps=first.plan.settings.steps,
            runs=len(self.runs),
            finished=self.finished,
            seconds=seconds,
        )

    def finish_all(self) -> None:
        """Train and evaluate the runs that are not finished."""
        for number, trial in enumerate(self.trials, 1):
            if not trial.finished(self.kept):
                self.reporter.say(f"run {number} of {len(self.trials)}: {trial.title}, seed {trial.seed}")
                folder = self.project.runs / f"explain-{trial.key[:16]}"
                trial.finish(self.kept, folder, self._options.accelerator(COMMAND), self._options, self.reporter)

    def result(self) -> Explanation:
        """Compare the evaluations of all runs.

        Raises:
            KdkitError: a damaged file.
        """
        found: dict[KnowledgeSource | None, list[Evaluation]] = {}
        for run, trial in zip(self.runs, self.trials, strict=True):
            found.setdefault(run.source, []).append(self.kept.load(trial.measurements[0].key))
        plan = self.runs[0].plan
        return Explanation(
            version=self.version.name,
            recipe=plan.recipe.name,
            length=self.options.length,
            steps=plan.settings.steps,
            seeds=tuple(dict.fromkeys(run.plan.settings.seed for run in self.runs)),
            sources=measure_effects(
                found.pop(None), {(s.name, s.kind): runs for s, runs in found.items() if s}, self.domains
            ),
            task=self.project.catalogue.spec(StudentSpec, self.project.registry.student.family).task,
            version_accuracy=self._version_accuracy(),
        )

    def _version_accuracy(self) -> float | None:
        """Mean over the compared domains; None if the version was not judged in all of them."""
        scores = self.version.lineage.scores.domains
        found = [scores[domain].get(ACCURACY) for domain in self.domains if domain in scores]
        known = [value for value in found if value is not None]
        return sum(known) / len(known) if len(known) == len(self.domains) else None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other explanations of the project out; other commands may run."""
        folder = self.project.state / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder / "explain.busy") as mine:
            if mine is False:
                raise KdkitError(
                    "KD-DIST-080",
                    "another 'kdkit explain' is at work in this project",
                    where=str(self.project.root),
                    fix="wait for it to end, or stop it; finished runs stay",
                    code=ExitCode.FOUND,
                )
            yield

    def close(self) -> None:
        """Release the models of live teachers."""
        self.inventory.close()

    @property
    def _options(self) -> TrialOptions:
        precision = self.version.lineage.training.machine.precision
        return TrialOptions(self.options.cpu, precision, self.options.checkpoint_seconds)
