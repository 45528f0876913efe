"""Updates that a device leaves out by itself, so that the host need not wait for it to say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kdkit.core.distill.plan.types import TrainSettings

MASKED = ("cuda", "xpu")
"""Devices that compute while the host goes on. On others the host reads each step's outcome."""


def limit_of(settings: TrainSettings) -> int:
    """Steps in a row that may not be finite before the run ends; the last of them ends it."""
    return max(1, settings.most_skipped)


class StepMask:
    """Whether the current step changes nothing, as values on the device; no method reads them.

    Args:
        limit: of skipped steps in a row. From there on no step changes anything, so that the state stays that of the
            step which ended the run, until the host reads of it.

    Attributes:
        skipped: () float32, 1 where the current step changes nothing.

    Example:
        >>> mask = StepMask(torch.device("cpu"), limit=2)
        >>> flags = []
        >>> for bad in (0.0, 1.0, 0.0, 1.0, 1.0, 0.0):
        ...     mask.update(torch.tensor(bad))
        ...     flags.append(int(mask.skipped))
        >>> flags  # the last step is finite, but the run has ended
        [0, 1, 0, 1, 1, 1]
    """

    def __init__(self, device: torch.device, limit: int) -> None:
        self.skipped, self._in_a_row, self._ended, self._applied = torch.zeros(4, device=device).unbind()
        self._limit = limit
        self.skipped.fill_(1)  # before the first step: nothing changed yet

    def resume(self, *, applied: int, in_a_row: int) -> None:
        """Continue a run that has changed something in ``applied`` steps and skipped the last ``in_a_row``."""
        self._applied.fill_(applied)
        self._in_a_row.fill_(in_a_row)

    def update(self, bad: Tensor) -> None:
        """Take up the next step; ``bad`` () is 1 if it is not finite."""
        self._applied.add_(1 - self.skipped)
        self._in_a_row.add_(1).mul_(bad)
        torch.maximum(self._ended, (self._in_a_row >= self._limit).float(), out=self._ended)
        torch.maximum(bad, self._ended, out=self.skipped)

    def average(self, decay: float) -> Callable[[Tensor, Tensor, Any], Tensor]:
        """An ``avg_fn`` of torch's ``AveragedModel``: the moving average of the steps that changed something, the first
        of which replaces the initial weights."""

        def averaged(average: Tensor, current: Tensor, _: Any) -> Tensor:
            share = torch.where(self._applied == 0, 1.0, 1.0 - decay) * (1 - self.skipped)
            return torch.lerp(average, current, share.to(average.dtype))

        return averaged


class BufferMask:
    """The buffers of a task as they were before a step: a forward pass changes some (batch normalization's statistics),
    and a step that is not finite would leave them so."""

    def __init__(self, task: nn.Module) -> None:
        names = set(task.state_dict(keep_vars=True))
        self._buffers = [x for name, x in task.named_buffers() if name in names]
        self._saved: list[Tensor] = []

    def save(self) -> None:
        """Before the forward pass."""
        self._saved = [x.clone() for x in self._buffers]

    @torch.no_grad()
    def restore(self, skipped: Tensor | None = None) -> None:
        """After it; where ``skipped`` () is given, only if that is 1."""
        for buffer, saved in zip(self._buffers, self._saved, strict=True):
            buffer.copy_(saved if skipped is None else torch.where(skipped != 0, saved, buffer))
