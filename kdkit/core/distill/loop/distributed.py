"""One batch on several processes: which rows a loss sees, and what makes the gradients those of one process."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

PATIENCE = timedelta(days=7)
"""How long processes wait for one that extracts or corrects; one that fails ends them all before, by its launcher."""


def world_size() -> int:
    """Processes that share a batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def own_rank() -> int:
    """Number of this process among them; 0 for the main one."""
    return dist.get_rank() if world_size() > 1 else 0


def meet() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        dist.barrier()


def whole_batch(x: Tensor) -> Tensor:
    """A student's output as the losses see it: float32 (ids stay integers), rows of all processes.

    A parameter of the student has no rows of samples and is the same everywhere: it is handed on as it is. Each
    process then has the gradient of the whole loss with respect to it, and their average is just that.
    """
    if isinstance(x, nn.Parameter):
        return x
    return gather_batch(as_seen(x)) if x.ndim else as_seen(x)


def as_seen(x: Tensor) -> Tensor:
    """A student's output in float32, of this process alone; ids stay integers, parameters what they are."""
    return x.float() if x.is_floating_point() and not isinstance(x, nn.Parameter) else x


def all_rows(x: Tensor) -> Tensor:
    """(B, ...) as it is: the losses see the whole batch."""
    return x


def own_rows(x: Tensor) -> Tensor:
    """(B, ...) of the whole batch -> (b, ...), those of this process's share."""
    share = len(x) // world_size()
    return x[own_rank() * share :][:share]


def over_processes(x: Tensor) -> Tensor:
    """The sum of a number over processes, without gradient; all of them must ask."""
    total = x.detach().clone()
    dist.all_reduce(total)
    return total


def of_all(share: Tensor) -> Tensor:
    """The value of all processes' shares; its gradient is this one's, times the world size.

    Which the average over processes undoes: the parameters' gradients are then the sum of the shares'.
    """
    scaled = share * world_size()
    return over_processes(share) + (scaled - scaled.detach())


def gather_batch(x: Tensor) -> Tensor:
    """(b, ...) of every process -> (world * b, ...), in rank order; the identity for one process.

    Every process computes the same loss of the whole batch. The backward pass gives each process the gradient
    of its own rows times the world size, which the average over processes in DistributedDataParallel undoes:
    the parameters' gradients are exactly those of one process with the whole batch.
    """
    if world_size() == 1:
        return x
    return cast(Tensor, _Gather.apply(x))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        world, ctx.rank, ctx.rows = dist.get_world_size(), dist.get_rank(), x.shape[0]
        ctx.world = world
        parts = [torch.empty_like(x) for _ in range(world)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        start: int = ctx.rank * ctx.rows
        return grad[start : start + int(ctx.rows)] * int(ctx.world)
