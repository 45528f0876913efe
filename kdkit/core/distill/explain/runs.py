"""The runs of an explanation: one with all sources and one without each, for every seed; trained, evaluated, compared.

They share the student's initial weights and the batches. Only heads are drawn anew: without one teacher, the
heads of those after it start with other values. The runs make no version, and are evaluated on the calibration split.
Finished ones stay in ``.kdkit/explain``, so a killed command continues, and a repeated one trains nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.json_record import with_checksum, without_checksum
from kdkit.core.base.locks import file_lock
from kdkit.core.base.result import Result, Section
from kdkit.core.contracts import Reporter, StudentSpec
from kdkit.core.distill.cost_estimate import TRIAL_STEPS, measure_cost
from kdkit.core.distill.judge import evaluate_on_calibration
from kdkit.core.distill.loop.accelerator import make_accelerator
from kdkit.core.distill.model.student import StudentBuilder
from kdkit.core.distill.plan.ablation import KnowledgeSource
from kdkit.core.distill.plan.inventory import TeachingInventory
from kdkit.core.distill.plan.types import Plan
from kdkit.core.distill.run import Options, Prepared, train_plan
from kdkit.core.evaluation.leave_one_out import METRIC, Explanation, measure_effects
from kdkit.core.evaluation.scores import Evaluation

if TYPE_CHECKING:
    from accelerate import Accelerator

    from kdkit.core.project.project import Project
    from kdkit.core.project.versions import Version

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
        inventory: with the weights of this run.
        key: digest of everything that decides the evaluation.
    """

    source: KnowledgeSource | None
    plan: Plan
    inventory: TeachingInventory
    key: str

    @property
    def title(self) -> str:
        return "with all sources" if self.source is None else f"without {self.source.name}"


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
        return sum(self._file(run).is_file() for run in self.runs)

    def plan(self) -> ExplanationPlan:
        """The runs, with the time of those that are not finished."""
        pending, first = len(self.runs) - self.finished, self.runs[0]
        seconds = 0.0
        if pending:
            accelerator = self._accelerator()
            seconds = pending * measure_cost(self.project.state, self._prepared(first), accelerator).seconds
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

    def finish(self, run: ExplanationRun, label: str) -> None:
        """Train and evaluate a run, from its newest checkpoint, unless it is finished."""
        if self._file(run).is_file():
            return
        self.reporter.say(f"{label}: {run.title}, seed {run.plan.settings.seed}")
        folder, project = self.project.runs / f"explain-{run.key[:16]}", self.project
        options = Options(cpu=self.options.cpu, checkpoint_seconds=self.options.checkpoint_seconds)
        done = train_plan(project, self._prepared(run), options, self._accelerator(), folder, self.reporter)
        evaluation = evaluate_on_calibration(project, run.inventory, done.task.student, self.reporter, teachers=False)
        content = json.dumps(with_checksum(evaluation.to_json()), allow_nan=False)
        write_atomically(self._file(run), content.encode())
        shutil.rmtree(folder, ignore_errors=True)

    def result(self) -> Explanation:
        """Compare the evaluations of all runs.

        Raises:
            KdkitError: a damaged file.
        """
        found: dict[KnowledgeSource | None, list[Evaluation]] = {}
        for run in self.runs:
            found.setdefault(run.source, []).append(self._load(self._file(run)))
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
        found = [scores[domain].get(METRIC) for domain in self.domains if domain in scores]
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

    def _prepared(self, run: ExplanationRun) -> Prepared:
        return Prepared(run.plan, run.inventory, StudentBuilder.of(self.project, None, run.plan.settings.seed))

    def _accelerator(self) -> Accelerator:
        return make_accelerator(self.version.lineage.training.machine.precision, cpu=self.options.cpu)

    def _file(self, run: ExplanationRun) -> Path:
        return self.project.state / FOLDER / f"{run.key[:32]}.json"

    @staticmethod
    def _load(file: Path) -> Evaluation:
        try:
            return Evaluation.from_json(without_checksum(json.loads(file.read_bytes())))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise KdkitError(
                "KD-DIST-081",
                "the evaluation of a run cannot be read",
                where=str(file),
                why=str(error),
                fix="delete the file; 'kdkit explain' repeats the run",
                code=ExitCode.MISSING,
            ) from None
