"""``kdkit profile``: where the time of a training step goes, and the one setting that would help most."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.result import Result, Section, Table
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.distill.loop.accelerator import end_process_group, make_accelerator
from kdkit.core.distill.loop.launcher import launched_sharding
from kdkit.core.distill.loop.stopwatch import PARTS, Stopwatch
from kdkit.core.distill.options import Options
from kdkit.core.distill.trial_steps import prepared_to_try, try_steps

if TYPE_CHECKING:
    from kdkit.core.project.project import Project

SKIPPED = 2
"""The first steps are slow (threads, caches, compiled kernels) and not counted."""
DATA_WAIT = 0.15
"""A larger share of a step than this is worth a setting; below it, the largest part of the computation is named."""
MEANINGS = {
    "data": "waiting for the batch",
    "forward": "the student's forward pass, computed again with micro-batches",
    "losses": "heads and losses",
    "backward": "backward pass and averaging of gradients",
    "optimizer": "clipping and AdamW",
    "sync": "waiting for other processes",
}


@dataclass(frozen=True)
class Profile(Result):
    """Parts of a training step on the main process.

    Attributes:
        seconds: part -> median over the steps.
        step_seconds: median of whole steps. Parts are measured one after the other; a run on a GPU overlaps them.
        steps: that were counted.
        samples: of a step, over all processes.
        advice: the setting that would help most.
    """

    seconds: Mapping[str, float]
    step_seconds: float
    steps: int
    samples: int
    processes: int
    device: str
    advice: str

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": dict(self.seconds)}

    def sections(self) -> list[Section]:
        """A table of the parts, the throughput and the advice."""
        total = sum(self.seconds.values()) or 1.0
        rows = [
            (name, f"{1000 * x:.1f}", f"{100 * x / total:.0f} %", MEANINGS[name]) for name, x in self.seconds.items()
        ]
        where = self.device if self.processes == 1 else f"{self.processes} processes, {self.device}"
        return [
            f"{self.steps} steps of {self.samples} samples on {where}: {1000 * self.step_seconds:.1f} ms a step, "
            f"{self.samples / self.step_seconds:.0f} samples a second",
            "",
            Table(("part", "ms", "share", "what"), rows, "lrrl"),
            "",
            self.advice,
        ]


def profile(project: Project, options: Options, steps: int, reporter: Reporter) -> Profile | None:
    """Train a copy of the plan's student for ``steps`` and measure them; makes no version. Of a recipe with stages,
    the last one.

    Missing features are extracted, because trust and the plan depend on them.

    Returns:
        The profile; None in all processes of a distributed run but the first.

    Raises:
        KdkitError: too few steps; see :func:`kdkit.core.distill.run.prepare`.
    """
    if steps <= SKIPPED:
        raise KdkitError(
            "KD-DIST-406",
            f"{steps} steps are too few",
            where="--steps",
            why=f"the first {SKIPPED} are slow and not counted",
            fix="choose 10 or more",
            code=ExitCode.USAGE,
        )
    options = replace(options, sharding=options.sharding or launched_sharding())
    accelerator = make_accelerator(options.precision, cpu=options.cpu)
    reporter = reporter if accelerator.is_main_process else Silent()
    stopwatch = Stopwatch(accelerator.device)
    with prepared_to_try(project, options, accelerator, reporter) as prepared:
        plan = prepared.plan
        few = min(steps, plan.settings.steps)
        try_steps(
            project.state,
            prepared,
            accelerator,
            few,
            targets=reporter,
            reporter=reporter,
            stopwatch=stopwatch,
            sharding=options.sharding,
        )
    processes, device = accelerator.num_processes, str(accelerator.device)
    end_process_group(accelerator)
    if not accelerator.is_main_process:
        return None
    counted = stopwatch.steps[SKIPPED:] or stopwatch.steps
    seconds = {name: statistics.median(step.get(name, 0.0) for step in counted) for name in PARTS}
    settings = {
        "cached": prepared.student.reading.cache is not None,
        "micro": plan.recipe.optimizer.micro_batch is not None,
        "bf16": options.precision == "bf16",
        "gpu": accelerator.device.type != "cpu",
    }
    return Profile(
        seconds,
        statistics.median(sum(step.values()) for step in counted),
        len(counted),
        plan.batch_size,
        processes,
        device,
        advise(seconds, settings),
    )


def advise(seconds: Mapping[str, float], settings: Mapping[str, bool]) -> str:
    """The setting that would help most.

    Args:
        seconds: of each part.
        settings: of the run: ``cached`` inputs, ``micro`` batches, ``bf16``, on a ``gpu``.

    Example:
        >>> advise({"data": 3.0, "forward": 1.0, "losses": 0.0}, {"cached": False})
        "Most helpful: 'inputs: {cache: uint8}' in registry.yaml: images are decoded and resized once."
    """
    total = sum(seconds.values()) or 1.0
    if seconds["data"] >= DATA_WAIT * total:
        if not settings.get("cached"):
            return "Most helpful: 'inputs: {cache: uint8}' in registry.yaml: images are decoded and resized once."
        return "Most helpful: a faster disk for .kdkit, or a larger 'inputs.threads' in registry.yaml."
    part = max(seconds, key=lambda name: seconds[name])
    if part == "sync":
        return "Most helpful: a larger optimizer.batch_size, or processes on equal devices: they wait for each other."
    if part == "losses":
        return "Most helpful: more processes (--gpus): they share the work of the losses."
    if part == "optimizer":
        return "Most helpful: a larger optimizer.batch_size: fewer steps of the optimizer for the same samples."
    if settings.get("micro"):
        return "Most helpful: a larger optimizer.micro_batch, or none: micro-batches compute the forward pass twice."
    if settings.get("gpu") and not settings.get("bf16"):
        return "Most helpful: --precision bf16: matrix products take less time and memory."
    return "The student itself takes the time: more processes (--gpus) or a smaller student would help."
