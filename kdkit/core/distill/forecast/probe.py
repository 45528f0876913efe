"""The numbers of a workload, counted and measured on a task that has made a few steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kdkit.core.base.memory import total_memory
from kdkit.core.contracts import Student
from kdkit.core.data.images import open_image
from kdkit.core.distill.forecast.arithmetic import forecast
from kdkit.core.distill.forecast.devices import Target
from kdkit.core.distill.forecast.workload import Forecast, Measured, StudentLoad, TeacherLoad, Workload
from kdkit.core.distill.loop.checkpoint import KEEP
from kdkit.core.distill.loop.checkpoint_state import checkpoint_bytes
from kdkit.core.distill.loop.dataloader import DistillBatch
from kdkit.core.distill.loop.distributed import get_world_size
from kdkit.core.distill.loop.stopwatch import PARTS, Stopwatch
from kdkit.core.distill.model.build import Build
from kdkit.core.distill.model.micro_batches import activation_bytes
from kdkit.core.distill.model.task import DistillTask
from kdkit.core.distill.options import Options
from kdkit.core.distill.plan.types import Plan
from kdkit.core.distill.prepare import Prepared
from kdkit.core.features.store.store import FeatureStore

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import Accelerator

    from kdkit.core.distill.plan.inventory import TeachingInventory
    from kdkit.core.project.project import Project

INDEX_BYTES, ROW_BYTES = 17, 12
"""Memory of a sample: its digest, flags and domain number; and for each teacher its row number and trust."""
FEW = (1, 3)
"""Samples of two counts and measurements, whose difference belongs to the samples alone."""
READ = 8
"""Images that are read and prepared to time it; the first is not counted."""


class Probe:
    """Counts and times the trial steps of a plan, for a forecast.

    Attributes:
        stopwatch: for the steps.
    """

    def __init__(self, project: Project, prepared: Prepared, options: Options, accelerator: Accelerator) -> None:
        self.stopwatch = Stopwatch(accelerator.device)
        self._project, self._prepared, self._options, self._accelerator = project, prepared, options, accelerator
        self._student: StudentLoad | None = None
        self._decode, self._checkpoint = 0.0, 0

    def inspect(self, made: Build, batch: DistillBatch) -> None:
        """Count one batch of the trained task."""
        plan, inventory = self._prepared.plan, self._prepared.inventory
        arguments = batch.to(self._accelerator.device)
        with self._accelerator.autocast():
            self._student = count_student(made.task, arguments, held_bytes(made, inventory))
        if self._prepared.student.reading.cache is None:
            self._decode = decoding_seconds(made.task.student, plan, inventory)
        self._checkpoint = checkpoint_bytes(made.task, averaged=plan.settings.ema is not None)

    def forecast(self, target: Target, *, version: int, inputs: int, free: int) -> Forecast:
        """The plan on ``target``, after :meth:`inspect`.

        Args:
            version: bytes of the version; ``inputs``: of all decoded inputs on disk; ``free``: on the project's disk.
        """
        plan, inventory, options = self._prepared.plan, self._prepared.inventory, self._options
        assert self._student is not None, "the trial steps are inspected"
        device, processes = self._accelerator.device, int(self._accelerator.num_processes)
        work = Workload(
            samples=len(plan.samples),
            steps=plan.settings.steps,
            batch_size=plan.batch_size,
            student=self._student,
            teachers=teacher_loads(self._project.features, plan, inventory),
            micro_batch=plan.recipe.optimizer.micro_batch,
            precision=options.precision,
            averaged=plan.settings.ema is not None,
            shard=options.sharding is not None,
            input_bytes=inputs // max(1, len(plan.samples)),
            version_bytes=version,
            checkpoint_bytes=self._checkpoint,
            checkpoints=KEEP + 1,
            decode_seconds=self._decode,
            index_bytes=INDEX_BYTES + ROW_BYTES * len(plan.teachers),
            disk_free=free if target.device is None else 0,
            measured=measured_steps(self.stopwatch.steps, device, processes=processes),
        )
        return forecast(work, target)


def held_bytes(made: Build, inventory: TeachingInventory) -> int:
    """Bytes of live teachers, frozen directions and the previous version's altered inputs."""
    held = sum(teacher.nbytes for teacher in inventory.live.values())
    return held + sum(part.nbytes for part in (made.task.frozen, made.task.altered) if part is not None)


def count_student(task: DistillTask, batch: Mapping[str, Any], held: int) -> StudentLoad:
    """Count one batch: its FLOPs by torch's ``FlopCounterMode``, and the bytes that a sample's forward pass keeps.

    Matrix products, convolutions and attention count; operations per element do not, which take time but few FLOPs.

    Args:
        batch: arguments of the task's forward, on its device.
        held: bytes of live teachers, frozen directions and the like.
    """
    inputs: Mapping[str, Tensor] = batch["inputs"]
    rows = len(next(iter(inputs.values())))
    few = [{name: x[: min(n, rows)] for name, x in inputs.items()} for n in FEW]
    training, student = task.training, task.student
    one, more = (_student_flops(student, part) for part in few)
    kept_one, kept_more = (activation_bytes(student, part) for part in few)
    between = max(1, min(FEW[1], rows) - 1)
    flops = max(0.0, (more - one) / between) or one
    activations = max(0, (kept_more - kept_one) // between) or kept_one
    everything = _task_flops(task, batch)
    student_share = _student_flops(student, inputs)
    task.train(training)
    targets = sum(x[:1].nbytes for signals in batch["targets"].values() for x in signals.values())
    outputs = sum(4 * width for width in cast(Student, student).outputs.values())
    parameters = list(task.parameters())
    trained = [p for p in parameters if p.requires_grad]
    return StudentLoad(
        parameters=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in trained),
        parameter_bytes=sum(p.nbytes for p in parameters),
        trained_bytes=sum(p.nbytes for p in trained),
        flops=flops,
        loss_flops=get_world_size() * max(0.0, everything - student_share),
        activations=activations + sum(x[:1].nbytes for x in inputs.values()),
        output_bytes=outputs + targets,
        held=held,
    )


def _task_flops(task: DistillTask, batch: Mapping[str, Any]) -> float:
    with torch.random.fork_rng(), FlopCounterMode(display=False) as counter:
        task(**batch)["loss"].backward()
    task.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def _student_flops(student: nn.Module, inputs: Mapping[str, Tensor]) -> float:
    """Of a forward and a backward pass."""
    with torch.random.fork_rng(), FlopCounterMode(display=False) as counter:
        outputs = cast(Mapping[str, Tensor], student(inputs))
        rows = [x.float().sum() for x in outputs.values() if x.requires_grad and x.is_floating_point()]
        torch.autograd.backward(torch.stack(rows).sum())
    student.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def measured_steps(steps: Sequence[Mapping[str, float]], device: torch.device, *, processes: int) -> Measured:
    """Medians of timed steps without the first, which is slow.

    Args:
        steps: part -> seconds, of each step.
    """
    counted = steps[1:] or steps
    parts = {name: statistics.median(step.get(name, 0.0) for step in counted) for name in PARTS}
    whole = statistics.median(sum(step.values()) for step in counted)
    return Measured(str(device), whole, parts, total_memory(device), processes)


def teacher_loads(root: Path, plan: Plan, inventory: TeachingInventory) -> tuple[TeacherLoad, ...]:
    """What the plan's teachers keep in the store; live ones keep nothing there."""
    store, loads = FeatureStore(root), list[TeacherLoad]()
    for teacher in plan.teachers:
        if not teacher.live:
            header = store.column(teacher.name, teacher.fingerprint).header
            loads.append(TeacherLoad(teacher.name, header.row_bytes, samples=len(inventory.index)))
    return tuple(loads)


def decoding_seconds(student: nn.Module, plan: Plan, inventory: TeachingInventory) -> float:
    """Seconds of one processor to read and prepare a sample for the student."""
    rows = plan.samples[:: max(1, len(plan.samples) // READ)][:READ].tolist()
    seconds = list[float]()
    for row in rows:
        sample = inventory.index.samples[row]
        begun = time.perf_counter()
        cast(Student, student).prepare(open_image(sample), sample)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[1:] or seconds)
