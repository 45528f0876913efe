"""The loop: batches in, a trained task out. It knows the key ``loss`` and nothing else of distillation."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Reporter
from kdkit.core.distill.loop.checkpoint import Checkpoints, Progress
from kdkit.core.distill.loop.dataloader import Batch

if TYPE_CHECKING:
    from accelerate import Accelerator

LOG_POINTS = 100
"""How many points of the loss curve a run keeps."""


@dataclass(frozen=True)
class TrainSettings:
    """How to train; all of it follows from the recipe and the plan.

    Attributes:
        steps: optimizer steps.
        lr: peak learning rate.
        warmup: fraction of the steps with a linear rise.
        schedule: ``cosine`` to zero, or ``constant``.
        clip_norm: global gradient norm, or None.
        ema: decay of an exponential moving average of the weights, which is what is kept; or None.
        checkpoint_seconds: time between checkpoints.
    """

    steps: int
    lr: float
    weight_decay: float
    betas: tuple[float, float]
    warmup: float
    schedule: str
    clip_norm: float | None
    seed: int
    ema: float | None = None
    checkpoint_seconds: float = 60.0


def learning_rate(settings: TrainSettings, step: int) -> float:
    """The rate of ``step`` (0-based): linear warm-up, then constant or half a cosine to zero."""
    rise = settings.warmup * settings.steps
    if step < rise:
        return settings.lr * (step + 1) / (rise + 1)
    if settings.schedule == "constant":
        return settings.lr
    done = (step - rise) / max(1.0, settings.steps - rise)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizer(task: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW over every trainable parameter; no weight decay on vectors and scalars (norms, biases, scales)."""
    trainable = [p for p in task.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.lr, betas=settings.betas)


class Batches(Protocol):
    """Batches of a run: :class:`~kdkit.core.distill.loop.dataloader.Feed`, or one that corrects the student."""

    @property
    def pauses(self) -> frozenset[int]:
        """Steps before which something happens that takes long; a checkpoint is written first."""

    def run(self, start: int) -> Iterator[tuple[int, Batch]]:
        """(step, batch) from ``start`` to the last step. A batch is asked for when the step before it is done."""


def train(
    task: nn.Module,
    feed: Batches,
    settings: TrainSettings,
    *,
    accelerator: Accelerator,
    checkpoints: Checkpoints,
    reporter: Reporter,
) -> Progress:
    """Train ``task`` in place, from its newest checkpoint on if it has one.

    The result is the same whether or not the run was interrupted (bit for bit on a CPU), and the same to
    rounding for any number of processes.

    Raises:
        KdkitError: when the loss is not a number, naming the terms.
        KeyboardInterrupt: after a checkpoint, when the user asked to stop.
    """
    optimizer: Any
    model, optimizer = accelerator.prepare(task, make_optimizer(task, settings))
    average = _average(task, settings.ema)
    reached = checkpoints.restore(task, optimizer, average) or Progress(0, 0.0, [])
    if reached.step:
        reporter.say(f"continuing at step {reached.step} of {settings.steps}")
    model.train()
    clock = _Clock(reached, settings.checkpoint_seconds)
    log = list(reached.log)
    with _stop_request() as stop:
        for step, batch in feed.run(reached.step):
            torch.manual_seed(_mix(settings.seed, step, accelerator.process_index))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, step)
            parts = model(**batch.to(accelerator.device))
            accelerator.backward(parts["loss"])
            if settings.clip_norm:
                accelerator.clip_grad_norm_(model.parameters(), settings.clip_norm)
            due = clock.due() or stop.asked or step + 1 in feed.pauses
            if due or _is_logged(step, settings.steps) or accelerator.device.type == "cpu":
                _check_finite(parts, step)  # reading the loss waits for the device, so not at every step there
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if average is not None:
                average.update_parameters(task)
            if _is_logged(step, settings.steps):
                log.append(_point(step, parts))
                reporter.progress("distil", step + 1, settings.steps, _in_words(log[-1]))
            if due and accelerator.is_main_process:
                checkpoints.save(task, optimizer, Progress(step + 1, clock.seconds(), log), average)
                clock.saved()
            if stop.asked:
                raise KeyboardInterrupt
    if average is not None:
        task.load_state_dict(average.module.state_dict())
    return Progress(settings.steps, clock.seconds(), log)


def _average(task: nn.Module, decay: float | None) -> AveragedModel | None:
    if decay is None:
        return None
    return AveragedModel(task, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]  # torch's


def _is_logged(step: int, steps: int) -> bool:
    every = max(1, steps // LOG_POINTS)
    return step % every == 0 or step == steps - 1


def _point(step: int, parts: Mapping[str, Tensor]) -> dict[str, float]:
    """Of the loss curve."""
    return {"step": float(step), **{name: float(value.detach()) for name, value in parts.items()}}


def _in_words(point: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in point.items() if name != "step")


def _mix(seed: int, step: int, rank: int) -> int:
    return (seed * 1_000_003 + step) * 1009 + rank


def _check_finite(parts: Mapping[str, Tensor], step: int) -> None:
    if not torch.isfinite(parts["loss"]):
        values = ", ".join(f"{name} = {float(value.detach()):g}" for name, value in parts.items() if name != "loss")
        raise KdkitError(
            "KD-DIST-017",
            f"the loss is not a number at step {step} ({values})",
            why="usually a learning rate that is too high, or a teacher with broken features",
            fix="lower optimizer.lr in the recipe; 'kdkit features verify' checks the features",
            code=ExitCode.FOUND,
        )


class _Clock:
    """Seconds of training, over interruptions; and when a checkpoint is due."""

    def __init__(self, reached: Progress, every: float) -> None:
        self._before, self._every = reached.seconds, every
        self._start = self._last = time.monotonic()

    def seconds(self) -> float:
        return self._before + time.monotonic() - self._start

    def due(self) -> bool:
        return time.monotonic() - self._last >= self._every

    def saved(self) -> None:
        self._last = time.monotonic()


class _Stop:
    asked = False


@contextmanager
def stops_at_once() -> Iterator[None]:
    """Ctrl-C ends at once what is done here, which keeps what it has itself, instead of after the next step."""
    try:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _stop_request() -> Iterator[_Stop]:
    """The first Ctrl-C asks to stop after the step (a checkpoint is written); the second one stops at once."""
    stop = _Stop()

    def on_interrupt(*_: object) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    try:
        before = signal.signal(signal.SIGINT, on_interrupt)
    except ValueError:  # not in the main thread: a notebook's or a server's business
        yield stop
        return
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
