"""Steps whose loss or gradient is not a finite number: they change nothing, are counted and named, or end the run.

The host can read the values of a CPU at any time, so it decides before the optimizer's step. On a GPU each reading
would make the host wait for the device. There the device decides: fused AdamW leaves weights and states as they are
where its ``found_inf`` is 1 (what torch's GradScaler uses), and the other updates are masked
(:mod:`~kdkit.core.distill.loop.masking`). The host reads what was found at logged steps, before checkpoints, and every
``READ_EVERY`` steps at least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from kdkit.core.contracts import Reporter
from kdkit.core.data.names import name_some
from kdkit.core.distill.loop.checkpoint_files import Progress
from kdkit.core.distill.loop.distributed import get_world_size
from kdkit.core.distill.loop.masking import BufferMask, limit_of
from kdkit.core.distill.loop.parallel import Training
from kdkit.core.distill.plan.types import TrainSettings
from kdkit.core.project.training_record import SkippedStep

READ_EVERY = 100
"""Steps, at most, between two readings of what a GPU found."""
KEPT = 20
"""Skipped steps that are named; later ones are counted."""
NORM = "gradient"

Names = Callable[[], list[str]]


@dataclass(frozen=True)
class BadStep:
    """A step that is not finite.

    Attributes:
        found: value -> what it was: of the loss, its terms, the gradient's norm and parts of the batch; finite ones
            too.
        names: gives the ids of its samples.
    """

    step: int
    found: Mapping[str, float]
    names: Names

    @property
    def broken(self) -> tuple[str, ...]:
        """What is not finite: parts of the batch, which may be the cause, before what follows from them."""
        names = (name for name, value in self.found.items() if not _is_finite(value))
        return tuple(sorted(names, key=lambda name: "/" not in name))


class FiniteSteps:
    """Judges each step of a training after its backward pass.

    Args:
        training: whose updates are masked.
        reached: the step that a run continues from.
        reporter: hears of each skipped step.

    Attributes:
        ended: the step that ended the run, or None.
    """

    def __init__(self, training: Training, settings: TrainSettings, reached: Progress, reporter: Reporter) -> None:
        self._mask, self._reporter, self._limit = training.mask, reporter, limit_of(settings)
        self._buffers = BufferMask(training.task) if settings.most_skipped else None
        self._unread: list[tuple[int, list[str], Tensor, Names]] = []
        self.skipped, self._in_a_row, self._steps = (
            reached.skipped,
            reached.skipped_in_a_row,
            list(reached.skipped_steps),
        )
        self.ended: BadStep | None = None
        if self._mask is not None:
            self._mask.resume(applied=reached.step - reached.skipped, in_a_row=reached.skipped_in_a_row)

    @property
    def full(self) -> bool:
        """Whether :meth:`read` is due."""
        return len(self._unread) >= READ_EVERY

    @property
    def last_is_bad(self) -> bool:
        """Whether the last step that was read changed nothing."""
        return self._in_a_row > 0

    def begin(self) -> None:
        """Before a step's forward pass."""
        if self._buffers is not None:
            self._buffers.save()

    def judge(
        self, step: int, parts: Mapping[str, Tensor], norm: Tensor, inputs: Mapping[str, Any], names: Names
    ) -> bool:
        """Judge a step, equally on all ranks.

        Args:
            parts: the losses; ``norm``: () of the gradient; ``inputs``: what the task got.
            names: gives the ids of the step's samples.

        Returns:
            Whether the host is to leave out the updates; a mask leaves them out by itself.
        """
        loss = parts["loss"].detach()
        pair = torch.stack([loss.float(), norm.detach().to(loss.device).float()])
        bad = (~pair.isfinite()).any().float()
        if get_world_size() > 1:
            dist.all_reduce(bad, dist.ReduceOp.MAX)
        if self._mask is None:
            if not bad:
                self._in_a_row = 0
                return False
            labels, values = _values(parts, norm, inputs)
            self._note(BadStep(step, dict(zip(labels, values.tolist(), strict=True)), names))
            if self._buffers is not None:
                self._buffers.restore()
            return True
        self._mask.update(bad)
        labels, values = _values(parts, norm, inputs)
        self._unread.append((step, labels, torch.cat([bad[None], values]), names))
        if self._buffers is not None:
            self._buffers.restore(self._mask.skipped)
        return False

    def read(self) -> None:
        """Read what the device found since the last reading: the one place where the host waits for it."""
        if not self._unread:
            return
        unread, self._unread = self._unread, []
        flat = torch.cat([values for _, _, values, _ in unread]).cpu()
        rows = torch.split(flat, [len(values) for _, _, values, _ in unread])
        for (step, labels, _, names), row in zip(unread, rows, strict=True):
            bad, *values = row.tolist()
            if not bad:
                self._in_a_row = 0
            elif self.ended is None:
                self._note(BadStep(step, dict(zip(labels, values, strict=True)), names))

    def progress(self, step: int, seconds: float, log: list[dict[str, float]], strategy: str = "") -> Progress:
        """The state of the run after ``step`` steps."""
        return Progress(step, seconds, log, strategy, self.skipped, self._in_a_row, list(self._steps))

    def _note(self, bad: BadStep) -> None:
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row >= self._limit:
            self.ended = bad
            return
        found = _over_ranks(bad.broken)
        if len(self._steps) < KEPT:
            self._steps.append(SkippedStep(bad.step, found).to_json())
            self._reporter.warn(
                f"step {bad.step} is skipped: {name_some(found) or 'another process'} not finite; samples "
                f"{name_some(bad.names())} ({self.skipped} skipped so far)"
            )
            if len(self._steps) == KEPT:
                self._reporter.warn("further skipped steps are counted, not named")


def float_parts(inputs: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """(path, tensor) of the floating-point tensors in nested mappings, such as ``targets/radio/image``."""
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping):
            yield from float_parts(value, f"{prefix}{name}/")


def _values(parts: Mapping[str, Tensor], norm: Tensor, inputs: Mapping[str, Any]) -> tuple[list[str], Tensor]:
    """Labels and (n,) values of a step: losses, the gradient's norm, and of each part of the batch the largest
    magnitude, which is not finite if any of its values is not."""
    named = list(float_parts(inputs))
    largest = torch._foreach_norm([x for _, x in named], ord=float("inf")) if named else ()
    device = parts["loss"].device
    values = [x.detach().float() for x in parts.values()] + [norm.detach().to(device).float()]
    values += [x.to(device).float() for x in largest]
    return [*parts, NORM, *(name for name, _ in named)], torch.stack(values)


def _over_ranks(found: tuple[str, ...]) -> tuple[str, ...]:
    """What any rank found; a collective call, at skipped steps alone."""
    everyone = [found] * get_world_size()
    if len(everyone) > 1:
        dist.all_gather_object(everyone, found)
    return tuple(dict.fromkeys(name for names in everyone for name in names))


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")
