"""One batch on several processes (ranks): what each of them sees, and gradients equal to those of one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

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


def to_float32(x: Tensor) -> Tensor:
    """A student's output in float32; float64, integers and parameters pass unchanged."""
    if isinstance(x, nn.Parameter) or not x.is_floating_point() or x.dtype == torch.float64:
        return x
    return x.float()


@contextmanager
def peer_errors() -> Iterator[None]:
    """Turn a lost connection between ranks into a :class:`KdkitError`."""
    try:
        yield
    except RuntimeError as error:
        if get_world_size() == 1 or not is_lost_peer(error):
            raise
        raise lost_peer(" ".join(str(error).split())[:200]) from error


def lost_peer(why: str) -> KdkitError:
    """The error of a rank that lost another one."""
    return KdkitError(
        "KD-DIST-041",
        "another process of this run has ended",
        why=why,
        fix="read the message of that process; the same command continues from the last checkpoint",
        code=ExitCode.MISSING,
    )


def require_same(find: Callable[[], Mapping[str, str]]) -> None:
    """Compare what the ranks find; a collective call.

    Args:
        find: gives thing, such as "registry" -> its digest; a process alone does not call it.

    Raises:
        KdkitError: on every rank, where two differ; names the things and the ranks.
    """
    if get_world_size() == 1:
        return
    found = dict(find())
    of_ranks = gather_objects(found)
    things = [thing for thing in found if len({other[thing] for other in of_ranks}) > 1]
    if things:
        others = [str(rank) for rank, other in enumerate(of_ranks) if other != of_ranks[0]]
        raise KdkitError(
            "KD-DIST-043",
            f"the processes of this run have different {' and '.join(things)}",
            why=f"process{'es' if len(others) > 1 else ''} {', '.join(others)} differ from process 0: each machine has "
            "a project of its own, or this one changed while they started",
            fix="give all machines the same project folder, and run the command again",
            code=ExitCode.FOUND,
        )


def broadcast(value: T) -> T:
    """The main process's ``value``, on every rank; a collective call."""
    values = [value]
    if get_world_size() > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]


def gather_objects(value: T) -> list[T]:
    """The value of every rank, in rank order; a collective call."""
    values = [value] * get_world_size()
    if len(values) > 1:
        dist.all_gather_object(values, value)
    return values


def own_rows(size: int) -> slice:
    """This rank's rows of a global batch of ``size``."""
    share = size // get_world_size()
    return slice(get_rank() * share, (get_rank() + 1) * share)


def gather_rows(x: Tensor) -> Tensor:
    """(b, ...) of every rank -> (world * b, ...), in rank order, without gradient; a collective call."""
    x = x.detach().contiguous()
    parts = [torch.empty_like(x) for _ in range(get_world_size())]
    dist.all_gather(parts, x)
    return torch.cat(parts)


def all_reduce_sum(x: Tensor) -> Tensor:
    """The sum over ranks, without gradient; a collective call."""
    total = x.detach().clone()
    if get_world_size() > 1:
        dist.all_reduce(total)
    return total


def scale_for_ddp(share: Tensor) -> Tensor:
    """The sum of all ranks' shares as value, with the gradient of this rank's share times the world size.

    DistributedDataParallel averages gradients over ranks, which makes them the sum of the shares' gradients.
    """
    scaled = share * get_world_size()
    return all_reduce_sum(share) + (scaled - scaled.detach())
