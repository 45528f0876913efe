"""FSDP2 (torch's ``fully_shard``): each rank keeps a part of the weights, gradients and optimizer states.

A module's weights are gathered for its forward and backward pass, and gradients are averaged over ranks as they are
scattered. Everything that leaves the loop, such as a checkpoint, has full tensors, so that it fits any number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.distill.loop.distributed import all_reduce_sum, get_rank, get_world_size

LEAST_TORCH = "2.7"
"""The first version whose ``fully_shard`` can leave scalars, such as a logit scale, whole."""


def require_sharding() -> None:
    """Raises: KdkitError: a torch without what :func:`shard` needs."""
    if torch.__version__ < LEAST_TORCH:
        raise KdkitError(
            "KD-DIST-403",
            f"sharded weights need torch {LEAST_TORCH} or newer",
            why=f"torch is {torch.__version__}",
            fix=f"pip install 'torch>={LEAST_TORCH}', or train without --shard",
            code=ExitCode.MISSING,
        )


def shard(task: nn.Module, device: torch.device) -> None:
    """Shard the weights of a task over all ranks, in place.

    Each block of the student, an element of a list of modules of one class, is gathered alone; what is left is gathered
    together. Scalars stay whole.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (get_world_size(),))
    whole = {p for p in task.parameters() if not p.ndim}
    for part in [*blocks(task), task]:
        fully_shard(part, mesh=mesh, ignored_params=whole)
    task.to(device)


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules that repeat: elements of an ``nn.ModuleList`` or ``nn.Sequential`` of one class.

    Example:
        >>> class Block(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layers = nn.Sequential(nn.Linear(2, 2), nn.GELU())
        >>> len(list(blocks(nn.ModuleDict({"tower": nn.ModuleList([Block(), Block(), Block()])}))))
        3
    """
    for child in module.children():
        parts = list(child.children())
        repeats = isinstance(child, nn.ModuleList | nn.Sequential) and len({type(part) for part in parts}) == 1
        if repeats and len(parts) > 1 and any(True for _ in parts[0].children()):
            yield from parts
        else:
            yield from blocks(child)


def average_whole_gradients(task: nn.Module) -> None:
    """The mean over ranks of the gradients of parameters that are not sharded; a collective call."""
    for parameter in task.parameters():
        if parameter.requires_grad and not is_part(parameter):
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            mean = all_reduce_sum(gradient) / get_world_size()
            if parameter.grad is not None or bool(mean.any()):
                parameter.grad = mean


def clip_gradients(task: nn.Module, most: float) -> None:
    """As ``torch.nn.utils.clip_grad_norm_``, for gradients of which some are sharded; a collective call."""
    gradients = [p.grad for p in task.parameters() if p.grad is not None]
    local = [cast(Any, x).to_local() for x in gradients if is_part(x)]
    whole = [x for x in gradients if not is_part(x)]
    squares = all_reduce_sum(torch.stack([x.square().sum() for x in local]).sum())
    norm = (squares + sum((x.square().sum() for x in whole), torch.zeros_like(squares))).sqrt()
    factor = (most / (norm + 1e-6)).clamp(max=1.0)
    for x in (*local, *whole):
        x.mul_(factor)


def is_part(x: Tensor) -> bool:
    """Whether this rank holds a part of the tensor."""
    if get_world_size() == 1:
        return False
    from torch.distributed.tensor import DTensor  # takes a second to import

    return isinstance(x, DTensor)


def own_part(x: Tensor) -> Tensor:
    """This rank's part of a sharded tensor; a whole one unchanged."""
    return cast(Tensor, cast(Any, x).to_local()) if is_part(x) else x


def full_tensor(x: Tensor, *, everywhere: bool = False) -> Tensor:
    """``x`` on the CPU; of a sharded tensor all parts, on the main process alone unless ``everywhere`` is set.

    For sharded tensors this is a collective call. Other processes get an empty tensor.
    """
    if not is_part(x):
        return x.detach().cpu()
    whole: Tensor = cast(Any, x.detach()).full_tensor()
    return whole.cpu() if everywhere or get_rank() == 0 else whole.new_empty(0)


def sharded_like(x: Tensor, like: Tensor) -> Tensor:
    """A full tensor, the same on all ranks, sharded as ``like`` is; unchanged if that is not sharded."""
    if not is_part(like) or x.shape != like.shape:
        return x
    from torch.distributed.tensor import distribute_tensor

    part = cast(Any, like)
    return distribute_tensor(x.to(like.device), part.device_mesh, part.placements)


@torch.no_grad()
def copy_back(sharded: nn.Module, task: nn.Module, device: torch.device) -> None:
    """Set the weights and buffers of ``task`` to those of its sharded copy, on ``device``; a collective call."""
    state = task.state_dict(keep_vars=True)
    for name, x in sharded.state_dict().items():
        state[name].copy_(full_tensor(x, everywhere=True))
    task.to(device)


def is_sharded(module: nn.Module) -> bool:
    """Whether ``fully_shard`` took hold of the module."""
    if get_world_size() == 1:
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)
