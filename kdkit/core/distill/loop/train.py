"""The training loop. It reads the key ``loss`` of a task's output and knows nothing else of distillation."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.result import format_size
from kdkit.core.base.system_errors import is_out_of_memory
from kdkit.core.contracts import Reporter
from kdkit.core.distill.loop.checkpoint import Checkpoints
from kdkit.core.distill.loop.checkpoint_files import Progress
from kdkit.core.distill.loop.diagnosis import not_finite_error
from kdkit.core.distill.loop.distributed import get_world_size
from kdkit.core.distill.loop.finite_steps import FiniteSteps
from kdkit.core.distill.loop.interruption import RanksAgree, stop_requests
from kdkit.core.distill.loop.masking import limit_of
from kdkit.core.distill.loop.parallel import Training
from kdkit.core.distill.loop.peers import watched_peers
from kdkit.core.distill.loop.sharding import Sharding
from kdkit.core.distill.loop.stopwatch import Stopwatch
from kdkit.core.distill.plan.types import TrainSettings

if TYPE_CHECKING:
    from accelerate import Accelerator

LOG_POINTS = 100
"""Points of the loss curve that a run keeps."""


class Batch(Protocol):
    """Something that can be moved to a device as keyword arguments of the task."""

    def to(self, device: torch.device) -> Mapping[str, Any]: ...


class Batches(Protocol):
    """Batches of a run, such as :class:`~kdkit.core.distill.loop.dataloader.DistillDataLoader`."""

    @property
    def pauses(self) -> frozenset[int]:
        """Steps before which something slow happens; a checkpoint is written first."""

    def batches(self, start: int) -> Iterator[tuple[int, Batch]]:
        """(step, batch) from ``start`` to the last step, each requested after the step before it."""


@runtime_checkable
class Constrained(Protocol):
    """A task that limits which weights may result, such as :class:`~kdkit.core.distill.model.task.DistillTask`."""

    def constrain(self, skipped: Tensor | None = None) -> None:
        """Called after every optimizer step; changes parameters in place, equally on all processes.

        Args:
            skipped: () bool on the device; where True, the step changed nothing, and nor may this.
        """


@runtime_checkable
class Advising(Protocol):
    """A task that knows what lowers its memory."""

    def advise_memory(self, inputs: Mapping[str, Tensor], **others: object) -> str:
        """The setting to change after a step that found no memory, and by how much."""


@runtime_checkable
class Named(Protocol):
    """A batch that can name its samples, by a function that does not hold the batch: skipped steps keep it."""

    name_samples: Callable[[], list[str]]


def train(
    task: nn.Module,
    loader: Batches,
    settings: TrainSettings,
    *,
    accelerator: Accelerator,
    checkpoints: Checkpoints,
    reporter: Reporter,
    on_point: Callable[[Mapping[str, float]], None] | None = None,
    sharding: Sharding | None = None,
    stopwatch: Stopwatch | None = None,
) -> Progress:
    """Train ``task`` in place, from its newest checkpoint if there is one.

    An interrupted run ends with the same weights as an uninterrupted one (bit for bit on a CPU), and any number of
    processes gives the same result up to rounding. The last step writes a checkpoint too: a failure after it costs no
    training.

    Args:
        on_point: receives each logged point on the main process: ``step``, ``loss`` and its terms.
        sharding: how several processes share weights and optimizer states; None if each has them all (DDP).
        stopwatch: measures the parts of each step, which makes them slower.

    Raises:
        KdkitError: the loss or the gradient is not finite, or was not in too many steps in a row (names the samples,
            and the teacher, weight or module where it begins); no memory is left; the disk has no room for a
            checkpoint, or a process cannot write its part.
        KeyboardInterrupt: after a checkpoint, when Ctrl-C, SIGTERM, SIGHUP or SIGUSR1 end the run.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from types import SimpleNamespace
        >>> from accelerate import Accelerator
        >>> from kdkit.core.contracts import Silent
        >>> class Task(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.x = nn.Parameter(torch.ones(2, 2))
        ...     def forward(self, target):
        ...         return {"loss": (self.x - target).square().sum()}
        >>> class Loader:
        ...     pauses = frozenset()
        ...     def batches(self, start):
        ...         for step in range(start, 200):
        ...             yield step, SimpleNamespace(to=lambda device: {"target": torch.zeros(2, 2)})
        >>> settings = TrainSettings(
        ...     steps=200, lr=0.1, weight_decay=0.0, betas=(0.9, 0.98), warmup=0.05, schedule="cosine",
        ...     clip_norm=None, seed=0,
        ... )
        >>> task, folder = Task(), tempfile.TemporaryDirectory()
        >>> progress = train(
        ...     task, Loader(), settings,
        ...     accelerator=Accelerator(cpu=True), checkpoints=Checkpoints(Path(folder.name)), reporter=Silent(),
        ... )
        >>> progress.step, bool(task.x.abs().max() < 0.01)
        (200, True)
    """
    training = Training(task, settings, accelerator, sharding)
    optimizer, average = training.optimizer, training.average
    reached = checkpoints.restore(training.task, optimizer, average, reporter) or Progress(0, 0.0, [])
    if reached.step:
        reporter.say(f"continuing at step {reached.step} of {settings.steps}")
    if reached.step < settings.steps and accelerator.is_main_process:
        checkpoints.require_space(task, averaged=average is not None, reporter=reporter)
    training.model.train()
    clock, finite = _Clock(reached, settings.checkpoint_seconds), FiniteSteps(training, settings, reached, reporter)
    # Ranks that do something together when a checkpoint is due: write it, or tell each other of skipped steps.
    together = training.sharded or (training.mask is not None and get_world_size() > 1)
    time_is_up = RanksAgree(accelerator.device) if together else None
    log = list(reached.log)
    part = stopwatch.part if stopwatch is not None else lambda _: nullcontext()
    batches = loader.batches(reached.step)
    with stop_requests(accelerator.device) as stop, watched_peers() as peers:
        for step, batch in batches if stopwatch is None else stopwatch.steps_of(batches):
            peers.step = step
            torch.manual_seed(_step_seed(settings.seed, step, accelerator.process_index))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, step)
            finite.begin()
            inputs = dict[str, Any]()
            with _memory_errors(step, partial(_memory_advice, training, inputs)):
                with part("data"):
                    inputs.update(batch.to(accelerator.device))
                with part("losses"):  # and the student's forward pass, which the stopwatch counts for itself
                    parts = training.forward(inputs)
                with part("backward"):
                    training.backward(parts["loss"])
            if stopwatch is not None:
                stopwatch.wait_for_others()
            names = batch.name_samples if isinstance(batch, Named) else list[str]
            with part("optimizer"):
                skipped = finite.judge(step, parts, training.clip(settings.clip_norm), inputs, names)
            last, stopping = step + 1 == settings.steps, stop.requested()
            up = clock.due() if time_is_up is None else time_is_up(clock.due() and accelerator.is_main_process)
            due = up or stopping or last or step + 1 in loader.pauses
            if due or finite.full or _is_logged(step, settings.steps):
                finite.read()  # waits for the device, so not at every step of a GPU
            if (bad := finite.ended) is not None:
                again = inputs if bad.step == step else _repeat(batches, loader, bad.step).to(accelerator.device)
                torch.manual_seed(_step_seed(settings.seed, bad.step, accelerator.process_index))
                raise not_finite_error(training, bad, again, limit_of(settings))
            with part("optimizer"), _memory_errors(step, partial(_states_advice, training)):
                if not skipped:
                    _update(training)
                optimizer.zero_grad(set_to_none=True)
            if _is_logged(step, settings.steps):
                if not finite.last_is_bad:
                    log.append(_log_point(step, parts))
                    if on_point is not None and accelerator.is_main_process:
                        on_point(log[-1])
                reporter.progress("distill", step + 1, settings.steps, _format_point(log[-1:], finite.skipped))
            if due and (accelerator.is_main_process or training.sharded):
                progress = finite.progress(step + 1, clock.seconds(), list(log))
                checkpoints.save(training.task, optimizer, progress, average)
                if stopping or step + 1 in loader.pauses:
                    checkpoints.wait()
                clock.restart()
            if due and time_is_up is not None:
                time_is_up.forget()
            if stopping:
                raise KeyboardInterrupt(*stop.signals)
        checkpoints.wait()
        if stop.requested():  # during the last step
            raise KeyboardInterrupt(*stop.signals)
    training.finish()
    return finite.progress(settings.steps, clock.seconds(), log, training.strategy)


def _update(training: Training) -> None:
    """The step of the optimizer, and what follows from it."""
    training.optimizer.step()
    if isinstance(training.task, Constrained):
        training.task.constrain(None if training.mask is None else training.mask.skipped != 0)
    if training.average is not None:
        training.average.update_parameters(training.task)


def _states_advice(training: Training) -> str:
    """What would lower the memory of the optimizer's states."""
    trained = sum(p.nbytes for p in training.task.parameters() if p.requires_grad)
    return (
        f"the optimizer keeps {format_size(2 * trained)} beside as much again of weights and gradients: share them by "
        "--gpus N --shard, or train adapters (LoRA)"
    )


def _repeat(batches: Iterator[tuple[int, Batch]], loader: Batches, step: int) -> Batch:
    """The batch of an earlier step; ``batches`` ends."""
    if isinstance(batches, Generator):
        batches.close()
    return next(iter(loader.batches(step)))[1]


def learning_rate(settings: TrainSettings, step: int) -> float:
    """The rate of ``step`` (0-based): linear warm-up, then constant or half a cosine to zero.

    Example:
        >>> settings = TrainSettings(
        ...     steps=100, lr=1.0, weight_decay=0.0, betas=(0.9, 0.98), warmup=0.1, schedule="cosine",
        ...     clip_norm=None, seed=0,
        ... )
        >>> [round(learning_rate(settings, step), 2) for step in (0, 10, 55, 99)]
        [0.09, 1.0, 0.5, 0.0]
    """
    rise = settings.warmup * settings.steps
    if step < rise:
        return settings.lr * (step + 1) / (rise + 1)
    if settings.schedule == "constant":
        return settings.lr
    done = (step - rise) / max(1.0, settings.steps - rise)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * done))


def _is_logged(step: int, steps: int) -> bool:
    every = max(1, steps // LOG_POINTS)
    return step % every == 0 or step == steps - 1


def _log_point(step: int, parts: Mapping[str, Tensor]) -> dict[str, float]:
    return {"step": float(step), **{name: float(value.detach()) for name, value in parts.items()}}


def _format_point(last: Sequence[Mapping[str, float]], skipped: int) -> str:
    """The last logged point, if there is one, and how many steps were skipped, if any."""
    shown = [f"{name} {value:.3f}" for point in last for name, value in point.items() if name != "step"]
    return "  ".join([*shown, *([f"skipped {skipped}"] if skipped else [])])


def _step_seed(seed: int, step: int, rank: int) -> int:
    return (seed * 1_000_003 + step) * 1009 + rank


@contextmanager
def _memory_errors(step: int, advice: Callable[[], str]) -> Iterator[None]:
    why = None
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        why = " ".join(str(error).split())[:200]
        traceback.clear_frames(error.__traceback__)  # they hold the step's activations
    if why is not None:
        raise KdkitError(
            "KD-DIST-271",
            f"no memory left at step {step}",
            why=why,
            fix=f"{advice()}; the same command continues from the last checkpoint",
            code=ExitCode.MISSING,
        )


def _memory_advice(training: Training, inputs: Mapping[str, Any]) -> str:
    """What would lower the memory of forward and backward pass, and by how much."""
    training.optimizer.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if inputs and isinstance(training.task, Advising) and not training.sharded:
        return training.task.advise_memory(**inputs)
    return (
        "write 'optimizer: {micro_batch: auto}' in registry.yaml, or half of the number there: the student is the "
        "same, to rounding"
    )


class _Clock:
    """Seconds of training including earlier attempts, and when a checkpoint is due."""

    def __init__(self, reached: Progress, every: float) -> None:
        self._before, self._every = reached.seconds, every
        self._start = self._last = time.monotonic()

    def seconds(self) -> float:
        return self._before + time.monotonic() - self._start

    def due(self) -> bool:
        return time.monotonic() - self._last >= self._every

    def restart(self) -> None:
        self._last = time.monotonic()
