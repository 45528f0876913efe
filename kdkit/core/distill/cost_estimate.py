"""``distill --dry-run``: the plan, and its cost measured on a few real steps."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from torch import nn

from kdkit.core.base.memory import peak_memory
from kdkit.core.contracts import Reporter, Silent, Student
from kdkit.core.distill.forecast.devices import Target
from kdkit.core.distill.forecast.probe import Probe, held_bytes
from kdkit.core.distill.forecast.workload import Forecast
from kdkit.core.distill.loop.accelerator import end_process_group, make_accelerator
from kdkit.core.distill.loop.checkpoint import KEEP, SPARE_BYTES, space_warning
from kdkit.core.distill.loop.checkpoint_state import checkpoint_bytes, task_tensors, trained_bytes
from kdkit.core.distill.loop.dataloader import DistillBatch
from kdkit.core.distill.loop.launcher import launched_sharding
from kdkit.core.distill.loop.stored_inputs import stored_bytes
from kdkit.core.distill.model.build import Build
from kdkit.core.distill.model.previous_version import LABEL
from kdkit.core.distill.options import Options
from kdkit.core.distill.plan.types import Plan
from kdkit.core.distill.prepare import Prepared
from kdkit.core.distill.trial_steps import prepared_to_try, try_steps
from kdkit.core.evaluation.answers import StudentAnswers

if TYPE_CHECKING:
    from accelerate import Accelerator

    from kdkit.core.project.project import Project

TRIAL_STEPS = 4
"""The first step of a run is slow (threads, caches) and not counted."""
TRIAL_ANSWERS = 16
"""The first answer is not counted either."""


@dataclass(frozen=True)
class Estimate:
    """Cost of a run on this machine.

    Attributes:
        seconds: of training, from ``TRIAL_STEPS`` steps, which include decoding as far as they show it.
        memory: bytes of weights (with live teachers), gradients and optimizer state of the trained ones, frozen
            directions, and cached inputs; activations come on top.
        disk: bytes of the version and its checkpoints, of which a new one is written before the oldest is deleted.
        free: bytes free on the project's disk.
        correction_seconds: of the student's answers in all rounds of correction, from a few answers of the untrained
            student, which are the longest. A corrector's time comes on top.
        previous_seconds: of the previous version's targets, from the samples of the trial steps.
        inputs: bytes of decoded inputs on disk (``inputs: {cache: uint8}``), which later runs use too.
        version: bytes of the version alone, or of the result of a stage.
        peak: bytes at most, on a GPU those of its memory, else of the process: what the trial steps reached, with a
            moving average and the rest of the cached inputs.
    """

    seconds: float
    memory: int
    disk: int
    free: int
    correction_seconds: float = 0.0
    previous_seconds: float = 0.0
    inputs: int = 0
    version: int = 0
    peak: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """One line for people."""
        training = f"about {self.seconds:.0f} s of training on this machine (measured on {TRIAL_STEPS} steps)"
        answers = f"at most {self.correction_seconds:.0f} s of answers to correct, " if self.correction_seconds else ""
        decoded = f", {self.inputs / 2**20:.0f} MiB of decoded inputs" if self.inputs else ""
        targets = f"{self.previous_seconds:.0f} s of the previous version's targets, " if self.previous_seconds else ""
        return (
            f"{training}, {answers}{targets}{self.memory / 2**20:.0f} MiB of memory besides activations "
            f"({self.peak / 2**20:.0f} MiB with them and the program), "
            f"{self.disk / 2**20:.0f} MiB on disk{decoded} ({self.free / 2**30:.1f} GiB free)"
        )


class PlannedStage(NamedTuple):
    """A plan and its cost; of a recipe with stages, those of one stage."""

    plan: Plan
    estimate: Estimate
    forecast: Forecast | None = None
    """For ``--plan-for``."""


def dry_run(
    project: Project, options: Options, reporter: Reporter, target: Target | None = None
) -> tuple[PlannedStage, ...]:
    """Plan as :func:`kdkit.core.distill.run.distill` does, measure a few steps of each stage, and write no version.

    Missing features are extracted, because trust and the plan depend on them. A disk with too little space is a
    warning.

    Args:
        target: also forecast each stage there.

    Raises:
        KdkitError: initial weights of the student are not here, before anything is extracted; as :func:`prepare`.
    """
    options = replace(options, sharding=options.sharding or launched_sharding())
    accelerator = make_accelerator(options.precision, cpu=options.cpu)
    reporter = reporter if accelerator.is_main_process else Silent()
    planned = list[PlannedStage]()
    with prepared_to_try(project, options, accelerator, reporter) as prepared:
        for stage in prepared.stages:
            more = stage is not prepared
            if target is None:
                planned.append(PlannedStage(stage.plan, measure_cost(project.state, stage, accelerator, more=more)))
            else:
                probe = Probe(project, stage, options, accelerator)
                estimate = measure_cost(project.state, stage, accelerator, more=more, probe=probe)
                forecast = probe.forecast(target, version=estimate.version, inputs=estimate.inputs, free=estimate.free)
                planned.append(PlannedStage(stage.plan, estimate, forecast))
            accelerator.free_memory()
    results = sum(stage.estimate.version for stage in planned[:-1])
    needed = max(stage.estimate.disk + stage.estimate.inputs for stage in planned) + results
    if needed + SPARE_BYTES > (free := planned[-1].estimate.free):
        reporter.warn(space_warning(project.root, needed, free))
    return tuple(planned)


def measure_cost(
    state: Path, prepared: Prepared, accelerator: Accelerator, *, more: bool = False, probe: Probe | None = None
) -> Estimate:
    """The cost of a plan, from a few steps of a copy of its student.

    Args:
        more: another plan is measured next, so the processes stay together.
        probe: measures more of the steps.
    """
    plan, inventory = prepared.plan, prepared.inventory
    on_disk = prepared.student.reading.cache is not None and plan.augmented < len(plan.samples)
    first = inventory.index.samples[int(plan.samples[0])]
    row_bytes = stored_bytes(cast(Student, prepared.student.student), first) if on_disk else 0
    few = min(TRIAL_STEPS, plan.settings.steps)
    targets_timer, steps_timer = _Timer(LABEL), _Timer("distill")
    peaks = list[int]()

    def inspect(made: Build, batch: DistillBatch) -> None:
        peaks.append(peak_memory(accelerator.device))  # before the probe, which computes the whole batch at once
        assert probe is not None
        probe.inspect(made, batch)

    made = try_steps(
        state,
        prepared,
        accelerator,
        few,
        targets=targets_timer,
        reporter=steps_timer,
        stopwatch=None if probe is None else probe.stopwatch,
        inspect=None if probe is None else inspect,
    )
    reached = peaks[0] if peaks else peak_memory(accelerator.device)
    held = held_bytes(made, inventory)
    cached = 0 if on_disk else made.inputs.expected_bytes(inventory.rows("train"))
    if not more:
        end_process_group(accelerator)
    averaged, on_gpu = plan.settings.ema is not None, accelerator.device.type == "cuda"
    version = version_bytes(cast(Student, made.task.student), made.task)
    return Estimate(
        seconds=steps_timer.mean() * plan.settings.steps,
        memory=memory_bytes(made.task, averaged=averaged) + held + cached,
        disk=version + (KEEP + 1) * checkpoint_bytes(made.task, averaged=averaged),
        free=shutil.disk_usage(state.parent).free,
        correction_seconds=_correction_seconds(prepared, made, accelerator),
        previous_seconds=targets_timer.mean() * len(plan.rehearsed) / accelerator.num_processes,
        inputs=row_bytes * len(plan.samples),
        version=version,
        peak=reached + averaged * weight_bytes(made.task) + (0 if on_gpu else max(0, cached - made.inputs.used_bytes)),
    )


def memory_bytes(task: nn.Module, *, averaged: bool) -> int:
    """Memory of weights, gradients, optimizer state and moving average. Frozen weights have neither of the middle two.

    Example:
        >>> task = nn.Linear(10, 10, bias=False)
        >>> memory_bytes(task, averaged=False), memory_bytes(task.requires_grad_(False), averaged=True)
        (1600, 800)
    """
    weights = weight_bytes(task)
    return weights + 3 * trained_bytes(task) + averaged * weights


def weight_bytes(task: nn.Module) -> int:
    """Bytes of all parameters."""
    return sum(p.numel() * p.element_size() for p in task.parameters())


def version_bytes(student: Student, task: nn.Module) -> int:
    """The files of a version. A student with frozen weights is saved once: with adapters it does not write them."""
    tensors = task_tensors(task)
    if all(parameter.requires_grad for parameter in task.parameters()):
        return sum(tensor.nbytes for tensor in tensors.values())
    with tempfile.TemporaryDirectory() as folder:
        student.save(Path(folder) / "student")
        own = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return own + sum(tensor.nbytes for name, tensor in tensors.items() if not name.startswith("student."))


def _correction_seconds(prepared: Prepared, made: Build, accelerator: Accelerator) -> float:
    """Time of all answers in the run's rounds, shared by its processes."""
    rounds = prepared.plan.correction
    if rounds is None or not rounds.steps:
        return 0.0
    student: Any = made.task.student
    samples = [prepared.inventory.index.samples[row] for row in rounds.chosen(0)[:TRIAL_ANSWERS]]
    view = StudentAnswers("student", student, device=str(accelerator.device))
    view.answer(samples[:1])
    begun = time.monotonic()
    view.answer(samples)
    mean = (time.monotonic() - begun) / len(samples)
    return mean * rounds.per_round * len(rounds.steps) / int(accelerator.num_processes)


class _Timer(Silent):
    """A reporter that records when the progress with one label was made."""

    def __init__(self, label: str) -> None:
        self._label, self._points = label, list[tuple[float, int]]()

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG002  # the protocol's
        if label == self._label:
            self._points.append((time.monotonic(), done))

    def mean(self) -> float:
        """Seconds per item between the first and the last report; 0 without two reports."""
        if len(self._points) < 2:
            return 0.0
        (begun, before), (ended, after) = self._points[0], self._points[-1]
        return (ended - begun) / (after - before)
