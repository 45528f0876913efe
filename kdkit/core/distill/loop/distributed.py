"""One batch on several processes (ranks): what each of them sees, and gradients equal to those of one process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.system_errors import is_lost_peer

T = TypeVar("T")
TIMEOUT = timedelta(days=7)
"""How long ranks wait for one that extracts, corrects or judges. If a rank fails, its launcher ends the others."""


def get_world_size() -> int:
    """The number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def get_rank() -> int:
    """This process's rank; 0 is the main process."""
    return dist.get_rank() if get_world_size() > 1 else 0


def barrier() -> None:
    """Wait until every rank is here."""
    if get_world_size() > 1:
        dist.barrier()


def gather_outputs(x: Tensor) -> Tensor:
    """A student's output for the global batch, in float32 (ids stay integers).

    Parameters and scalars have no rows and are equal on all ranks, so they pass unchanged. Every rank then has the
    gradient of the whole loss with respect to them, and so does the average over ranks.
    """
    if isinstance(x, nn.Parameter):
        return x
    return all_gather_rows(to_float32(x)) if x.ndim else to_float32(x)


def to_float32(x: Tensor) -> Tensor:
    """A student's output in float32; integers and parameters pass unchanged."""
    return x.float() if x.is_floating_point() and not isinstance(x, nn.Parameter) else x


@contextmanager
def peer_errors() -> Iterator[None]:
    """Turn a lost connection between ranks into a :class:`KdkitError`."""
    try:
        yield
    except RuntimeError as error:
        if get_world_size() == 1 or not is_lost_peer(error):
            raise
        raise KdkitError(
            "KD-DIST-041",
            "another process of this run has ended",
            why=" ".join(str(error).split())[:200],
            fix="read the message of that process; the same command continues from the last checkpoint",
            code=ExitCode.MISSING,
        ) from error


def require_same_plan(plan: str) -> None:
    """Compare the plan of all ranks; the project may change while they make it.

    Raises:
        KdkitError: on every rank, where two plans differ.
    """
    plans = [plan] * get_world_size()
    if len(plans) > 1:
        dist.all_gather_object(plans, plan)
    if len(set(plans)) > 1:
        raise KdkitError(
            "KD-DIST-043",
            "the processes of this run made different plans",
            why="the project changed while they started, for example by 'kdkit rollback'",
            fix="run the command again",
            code=ExitCode.FOUND,
        )


def broadcast(value: T) -> T:
    """The main process's ``value``, on every rank; a collective call."""
    values = [value]
    if get_world_size() > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]


def identity(x: Tensor) -> Tensor:
    """``x`` itself: the counterpart of :func:`local_shard` and :func:`all_reduce_sum` for the global batch."""
    return x


def local_shard(x: Tensor) -> Tensor:
    """(B, ...) of the global batch -> (b, ...) of this rank."""
    share = len(x) // get_world_size()
    return x[get_rank() * share :][:share]


def all_reduce_sum(x: Tensor) -> Tensor:
    """The sum over ranks, without gradient; a collective call."""
    total = x.detach().clone()
    dist.all_reduce(total)
    return total


def scale_for_ddp(share: Tensor) -> Tensor:
    """The sum of all ranks' shares as value, with the gradient of this rank's share times the world size.

    DistributedDataParallel averages gradients over ranks, which makes them the sum of the shares' gradients.
    """
    scaled = share * get_world_size()
    return all_reduce_sum(share) + (scaled - scaled.detach())


def all_gather_rows(x: Tensor) -> Tensor:
    """(b, ...) of every rank -> (world * b, ...), in rank order; the identity for one process.

    Every rank computes the same loss of the global batch. The backward pass gives each rank the gradient of its own
    rows times the world size, and the average of DistributedDataParallel divides by it: the parameters' gradients are
    exactly those of one process with the global batch.
    """
    if get_world_size() == 1:
        return x
    return cast(Tensor, _AllGather.apply(x))


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.world, ctx.rank, ctx.rows = dist.get_world_size(), dist.get_rank(), x.shape[0]
        parts = [torch.empty_like(x) for _ in range(ctx.world)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        start: int = ctx.rank * ctx.rows
        return grad[start : start + int(ctx.rows)] * int(ctx.world)
