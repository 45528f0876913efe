"""What a checkpoint holds: the tensors of a task, its optimizer and its moving average, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

Shapes = Mapping[str, tuple[int, ...]]
_OPTIMIZER = "optimizer/"


def checkpoint_state(
    task: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None = None
) -> dict[str, Tensor]:
    """The tensors of a run as this rank has them, in parts if they are sharded. They share the run's memory.

    The student's frozen weights are left out: its source files hold them.
    """
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    moments = {f"{number}/{key}": torch.as_tensor(x) for number, part in state.items() for key, x in part.items()}
    parts = {"task": _changing(task), "optimizer": moments, "average": {} if average is None else _changing(average)}
    return {f"{part}/{name}": x.detach() for part, tensors in parts.items() for name, x in tensors.items()}


def state_to_load(
    task: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None, shapes: Shapes
) -> dict[str, Tensor]:
    """As :func:`checkpoint_state`, to be written over; with states that the optimizer does not have yet.

    Args:
        shapes: of the tensors of the checkpoint, by name.

    Raises:
        ValueError: the checkpoint has other tensors than the run.
    """
    state = checkpoint_state(task, optimizer, average)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, shape in shapes.items():
        number = int(name.split("/")[1]) if name.startswith(_OPTIMIZER) else len(parameters)
        if name not in state and number < len(parameters):
            p = parameters[number].detach()
            state[name] = torch.empty_like(p) if shape == p.shape else torch.zeros(shape)
    given = {name: x for name, x in shapes.items() if average is not None or not name.startswith("average/")}
    for name in sorted(given.keys() ^ state.keys()):
        raise ValueError(f"'{name}' is {'missing' if name in state else 'unexpected'}")
    for name, x in state.items():
        if tuple(x.shape) != given[name]:
            raise ValueError(f"'{name}' has the shape {given[name]}, and the run has {tuple(x.shape)}")
    return state


def give_to_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Set the optimizer's states to those of a checkpoint; the task's tensors are in their place already."""
    states: dict[int, dict[str, Tensor]] = {}
    for name, x in state.items():
        if name.startswith(_OPTIMIZER):
            number, key = name.removeprefix(_OPTIMIZER).split("/")
            states.setdefault(int(number), {})[key] = x
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def task_tensors(task: nn.Module) -> dict[str, Tensor]:
    """The state dict for safetensors: contiguous, on the CPU, shared tensors once."""
    return {name: x.detach().cpu().contiguous() for name, x in _once(task).items()}


def changing_tensors(task: nn.Module) -> dict[str, Tensor]:
    """:func:`task_tensors` without the student's frozen weights, which its source files hold (with adapters, nearly
    all weights)."""
    return {name: x.detach().cpu().contiguous() for name, x in _changing(task).items()}


def load_task_tensors(task: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of :func:`task_tensors` and :func:`changing_tensors`. Raises RuntimeError if names or shapes differ."""
    state = task.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    aliases = {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}
    kept = {name: state[name] for name in _frozen(task)}
    given = {name: tensors[first] for name, first in aliases.items() if first in tensors}
    task.load_state_dict(kept | given)
    extra = set(tensors) - set(state)
    if extra:
        raise RuntimeError(f"unexpected tensors: {', '.join(sorted(extra)[:3])}")


def checkpoint_bytes(task: nn.Module, *, averaged: bool) -> int:
    """Tensors of one checkpoint: what changes, its moving average, and the optimizer's two moments.

    Example:
        >>> task = nn.ModuleDict({"student": nn.Linear(10, 10, bias=False)})
        >>> checkpoint_bytes(task, averaged=False), checkpoint_bytes(task.requires_grad_(False), averaged=True)
        (1200, 0)
    """
    return (1 + averaged) * changing_bytes(task) + 2 * trained_bytes(task)


def trained_bytes(task: nn.Module) -> int:
    """Bytes of the parameters that are trained."""
    return sum(p.numel() * p.element_size() for p in task.parameters() if p.requires_grad)


def changing_bytes(task: nn.Module) -> int:
    """Of :func:`changing_tensors`, without copying them."""
    return sum(x.nbytes for x in _changing(task).values())


def _once(task: nn.Module) -> dict[str, Tensor]:
    """The state dict with each tensor under its first name alone."""
    out: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in task.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            out[name] = tensor
    return out


def _changing(task: nn.Module) -> dict[str, Tensor]:
    frozen = _frozen(task)
    return {name: x for name, x in _once(task).items() if name not in frozen}


def _frozen(task: nn.Module) -> set[str]:
    named = task.named_parameters(remove_duplicate=False)
    return {name for name, x in named if not x.requires_grad and ".student." in f".{name}"}
