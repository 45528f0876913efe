"""``distill --dry-run``: the plan, and what it will cost by a measurement of a few real steps."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.contracts import Reporter, Silent
from kdkit.core.distill.loop.accelerator import accelerate, part
from kdkit.core.distill.loop.sampler import BatchSchedule
from kdkit.core.distill.plan.plan import Plan
from kdkit.core.distill.run import Options, Prepared, make_feed, prepare

if TYPE_CHECKING:
    from kdkit.core.distill.model.build import Build
    from kdkit.core.project.project import Project

PROBE_STEPS = 4
"""The first step of a run is slow (threads, caches) and is not counted."""
PROBE_ANSWERS = 16
"""One of them is asked for beforehand."""


@dataclass(frozen=True)
class Estimate:
    """Attributes:
    seconds: of training, from ``PROBE_STEPS`` steps on this machine; decoding every image once is included
        as far as those steps show it.
    memory: bytes of parameters (live teachers' too), gradients, optimizer state and kept student inputs; activations
        come on top.
    disk: bytes of the version and its checkpoints.
    free: bytes free on the project's disk.
    correcting: seconds of the student's answers in all rounds of correction, from a few answers of the student as it
        starts: one that has not learnt yet where to end takes longest. A corrector's time comes on top.
    remembering: seconds in which the previous version is asked what it knows, from the samples of those steps.
    """

    seconds: float
    memory: int
    disk: int
    free: int
    correcting: float = 0.0
    remembering: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """One line for people."""
        training = f"about {self.seconds:.0f} s of training on this machine (measured on {PROBE_STEPS} steps)"
        answers = f"{self.correcting:.0f} s of answers to be corrected at most, " if self.correcting else ""
        asking = f"{self.remembering:.0f} s of the previous version's signals, " if self.remembering else ""
        return (
            f"{training}, {answers}{asking}{self.memory / 2**20:.0f} MiB of memory besides activations, "
            f"{self.disk / 2**20:.0f} MiB on disk ({self.free / 2**30:.1f} GiB free)"
        )


def dry_run(project: Project, options: Options, reporter: Reporter) -> tuple[Plan, Estimate]:
    """Plan as :func:`kdkit.core.distill.run.distill` would, measure a few steps on a copy, write no version.

    Features that are missing are extracted, since trust, and so the plan, cannot be known without them.
    """
    accelerator = accelerate(options.precision, cpu=options.cpu)
    talk = reporter if accelerator.is_main_process else Silent()
    with accelerator.main_process_first():
        prepared = prepare(project, options, talk, str(accelerator.device))
    return prepared.plan, _measure(project, prepared, accelerator)


def _measure(project: Project, prepared: Prepared, accelerator: Any) -> Estimate:
    from kdkit.core.distill.loop.checkpoint import Checkpoints
    from kdkit.core.distill.loop.train import train
    from kdkit.core.distill.model.build import build
    from kdkit.core.distill.model.previous_version import LABEL, forget, remembered

    plan = prepared.plan
    few = min(PROBE_STEPS, plan.settings.steps)
    schedule = BatchSchedule(plan.pools, batch_size=plan.batch_size, steps=few, seed=plan.settings.seed)
    shown = np.unique(np.concatenate([schedule[step] for step in range(few)]))
    asking = _Clock(LABEL)
    made = build(project, plan, prepared.survey, prepared.parent, asking, accelerator.device, shown=shown)
    feed = make_feed(prepared, made, accelerator, schedule)
    settings = dataclasses.replace(plan.settings, steps=few, ema=None)
    stepping = _Clock("distil")
    with tempfile.TemporaryDirectory() as scratch:
        train(
            made.task,
            feed,
            settings,
            accelerator=accelerator,
            checkpoints=Checkpoints(Path(scratch)),
            reporter=stepping,
        )
    made.inputs.close()
    teachers = sum(teacher.nbytes for teacher in prepared.survey.live.values())
    prepared.survey.close()
    if accelerator.is_main_process:
        forget(project)
    part(accelerator)
    parameters = sum(p.numel() * p.element_size() for p in made.task.parameters())
    return Estimate(
        seconds=stepping.each() * plan.settings.steps,
        memory=4 * parameters + teachers + made.inputs.expected_bytes(prepared.survey.samples("train")),
        disk=parameters * (1 + 2 * 3),
        free=shutil.disk_usage(project.root).free,
        correcting=_correcting(prepared, made, accelerator),
        remembering=asking.each() * len(remembered(plan)) / int(accelerator.num_processes),
    )


def _correcting(prepared: Prepared, made: Build, accelerator: Any) -> float:
    """Seconds of all answers that the run's rounds ask for, shared by its processes."""
    from kdkit.core.evaluation.answers import StudentAnswers

    rounds = prepared.plan.rounds
    if rounds is None or not rounds.steps:
        return 0.0
    student: Any = made.task.student
    samples = [prepared.survey.table.samples[row] for row in rounds.chosen(0)[:PROBE_ANSWERS]]
    view = StudentAnswers("student", student, device=str(accelerator.device))
    view.answer(samples[:1])
    begun = time.monotonic()
    view.answer(samples)
    each = (time.monotonic() - begun) / len(samples)
    return each * rounds.asked * len(rounds.steps) / int(accelerator.num_processes)


class _Clock(Silent):
    """Notes when how much was done of what has this label."""

    def __init__(self, label: str) -> None:
        self._label, self._told = label, list[tuple[float, int]]()

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG002  # the protocol's
        if label == self._label:
            self._told.append((time.monotonic(), done))

    def each(self) -> float:
        """Seconds a piece, between the first report and the last; 0 where there are not two."""
        if len(self._told) < 2:
            return 0.0
        (begun, before), (ended, after) = self._told[0], self._told[-1]
        return (ended - begun) / (after - before)
