"""Weights between two states of a task: (1 - a) start + a trained (WiSE-FT, arXiv 2109.01903, eq. 1)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from kdkit.core.distill.loop.checkpoint_state import changing_tensors

State = Mapping[str, Tensor]
"""Name -> tensor, on the CPU: all that training changes."""


def save_state(task: nn.Module) -> State:
    """A copy of everything that training changes, buffers included; the inverse is ``load_task_tensors``."""
    return {name: x.clone() for name, x in changing_tensors(task).items()}


def interpolate(start: State, trained: State, a: float) -> State:
    """The state between ``start`` (a = 0) and ``trained`` (a = 1), exact to the rounding of the result.

    Counters and tensors that ``start`` does not have are the trained ones.

    Example:
        >>> start, trained = {"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([4.0, 2.0]), "new": torch.ones(1)}
        >>> {name: x.tolist() for name, x in interpolate(start, trained, 0.25).items()}
        {'w': [1.0, 2.0], 'new': [1.0]}
    """
    return {name: _mix(start.get(name), x, a) for name, x in trained.items()}


def _mix(start: Tensor | None, trained: Tensor, a: float) -> Tensor:
    if start is None or start.shape != trained.shape or not trained.is_floating_point():
        return trained
    return ((1 - a) * start.double() + a * trained.double()).to(trained.dtype)
