"""FSDP2 (torch's ``fully_shard``): each rank keeps a part of the weights, gradients and optimizer states.

A module's weights are gathered for its forward and backward pass, and gradients are averaged over ranks as they are
scattered. With replicas (HSDP), groups of ranks share the weights, and gradients are averaged over the groups too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.distill.loop.distributed import all_reduce_sum, get_world_size

LEAST_TORCH = "2.9"
"""The first version that writes and reads sharded checkpoints in safetensors without other libraries."""


@dataclass(frozen=True)
class Sharding:
    """How ranks share the weights.

    Attributes:
        replicas: groups of ranks that have all weights, in parts, each; 1 for one group of all ranks (FSDP), more for
            HSDP. Neighboring ranks, such as those of a machine, form a group.
    """

    replicas: int = 1


def chosen_sharding(*, shard: bool, replicas: int) -> Sharding | None:
    """Of the options ``--shard`` and ``--replicas``. Raises: KdkitError: replicas of weights that are not sharded."""
    if replicas > 1 and not shard:
        raise KdkitError(
            "KD-DIST-522",
            f"--replicas {replicas} needs --shard",
            where="--replicas",
            why="without --shard each process has all weights",
            fix="add --shard, or remove --replicas",
            code=ExitCode.USAGE,
        )
    return Sharding(replicas) if shard else None


def require_groups(sharding: Sharding, processes: int) -> None:
    """Raises: KdkitError: processes that cannot form the groups, of two or more each."""
    groups = sharding.replicas
    if processes % groups or groups == processes > 1:
        raise KdkitError(
            "KD-DIST-523",
            f"{processes} processes cannot form {groups} groups that share the weights",
            where="--replicas",
            why="groups are of equal size, of two processes or more",
            fix="choose a divisor of half the number of processes, or train without --shard",
        )


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


def shard(task: nn.Module, device: torch.device, sharding: Sharding) -> None:
    """Shard the weights of a task over the ranks, in place.

    Each block of the student, an element of a list of modules of one class, is gathered alone; what is left is gathered
    together. Scalars stay whole.

    Raises:
        KdkitError: weights that are no floating-point numbers, such as quantized ones.
    """
    require_plain_weights(task)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    groups, each = sharding.replicas, get_world_size() // sharding.replicas
    if groups > 1:
        mesh = init_device_mesh(device.type, (groups, each), mesh_dim_names=("replicate", "shard"))
    else:
        mesh = init_device_mesh(device.type, (each,))
    whole = {p for p in task.parameters() if not p.ndim}
    for part in [*blocks(task), task]:
        fully_shard(part, mesh=mesh, ignored_params=whole)
    task.to(device)


def require_plain_weights(task: nn.Module) -> None:
    """Raises: KdkitError: a weight that is no floating-point number, such as a quantized one."""
    found = next((name for name, weight in task.named_parameters() if not weight.is_floating_point()), None)
    if found is not None:
        raise KdkitError(
            "KD-DIST-597",
            f"the weight {found} is quantized and cannot be sharded",
            where="--shard",
            why="a part of a quantized matrix has no meaning without the scales of the whole",
            fix="train without --shard (adapters need little memory), or without quantization",
        )


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


def clip_gradients(task: nn.Module, most: float | None) -> Tensor:
    """As ``torch.nn.utils.clip_grad_norm_``, for gradients of which some are sharded; a collective call.

    Args:
        most: None to measure the norm only.

    Returns:
        () the norm before.
    """
    gradients = [p.grad for p in task.parameters() if p.grad is not None]
    parts = [x for x in gradients if is_part(x)]
    local = [own_part(x) for x in parts]
    whole = [x for x in gradients if not is_part(x)]
    own = sum((x.square().sum() for x in local), torch.zeros((), device=gradients[0].device))
    squares = all_reduce_sum(own) / (_replicas(parts[0]) if parts else 1)
    norm = (squares + sum((x.square().sum() for x in whole), torch.zeros_like(squares))).sqrt()
    if most is not None:
        factor = (most / (norm + 1e-6)).clamp(max=1.0)
        for x in (*local, *whole):
            x.mul_(factor)
    return norm


def _replicas(part: Tensor) -> int:
    """How many ranks hold each part of a sharded tensor."""
    mesh = cast(Any, part).device_mesh
    return int(mesh.size(0)) if mesh.ndim > 1 else 1


def is_part(x: Tensor) -> bool:
    """Whether this rank holds a part of the tensor."""
    if get_world_size() == 1:
        return False
    from torch.distributed.tensor import DTensor  # takes a second to import

    return isinstance(x, DTensor)


def own_part(x: Tensor) -> Tensor:
    """This rank's part of a sharded tensor; a whole one unchanged."""
    return cast(Tensor, cast(Any, x).to_local()) if is_part(x) else x


def full_tensor(x: Tensor) -> Tensor:
    """``x``; of a sharded tensor all parts, which is a collective call."""
    return cast(Tensor, cast(Any, x).full_tensor()) if is_part(x) else x


@torch.no_grad()
def copy_back(sharded: nn.Module, task: nn.Module, device: torch.device) -> None:
    """Set the weights and buffers of ``task`` to those of its sharded copy, on ``device``; a collective call."""
    state = task.state_dict(keep_vars=True)
    for name, x in sharded.state_dict().items():
        state[name].copy_(full_tensor(x))
    task.to(device)


def is_sharded(module: nn.Module) -> bool:
    """Whether ``fully_shard`` took hold of the module."""
    if get_world_size() == 1:
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)


def replicas_of(module: nn.Module) -> int:
    """How many groups of ranks have all weights of a sharded module, as found in its parameters."""
    return next((_replicas(p) for p in module.parameters() if is_part(p)), 1)
