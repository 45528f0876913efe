"""A teacher's next-token distribution as it is stored: its k likeliest tokens, and the mass of all the others.

Log probabilities at temperature 1, because these are exact in float16 where it matters (near 0). At a
temperature T the distribution is p^(1/T), normalised; the k tokens' part follows from what is stored, the
rest's does not, so its log mass is stored for each of :data:`TEMPERATURES`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kdkit.core.errors import KdkitError
from kdkit.plugins.losses.tokens.divergence import NEVER

TEMPERATURES = (0.5, 1.0, 2.0)


class TopK(NamedTuple):
    """``ids`` (N, k) int32, ``log_p`` (N, k) falling, ``tail`` (N, 3) log sum over the rest of p^(1/T)."""

    ids: Tensor
    log_p: Tensor
    tail: Tensor


def compress(logits: Tensor, k: int) -> TopK:
    """The stored form of (N, V) logits, in their dtype; ``k`` is at most V."""
    log_p = logits.log_softmax(-1)
    top = log_p.topk(min(k, logits.shape[-1]), dim=-1)
    rest = log_p.scatter(-1, top.indices, -torch.inf)
    tail = torch.stack([(rest / t).logsumexp(-1) for t in TEMPERATURES], dim=-1)
    return TopK(top.indices.to(torch.int32), top.values, tail.clamp(min=NEVER))


def at_temperature(log_p: Tensor, tail: Tensor, temperature: float) -> Tensor:
    """(N, k + 1) log of the teacher's distribution at ``temperature``: the k tokens, then all others as one class.

    Raises:
        KdkitError: for a temperature whose rest was not stored.
    """
    if temperature not in TEMPERATURES:
        raise KdkitError(
            f"the stored signals do not tell a teacher's distribution at temperature {temperature:g}",
            fix=f"choose one of {', '.join(f'{t:g}' for t in TEMPERATURES)}",
        )
    rest = tail[:, TEMPERATURES.index(temperature), None]
    return torch.cat([log_p / temperature, rest.clamp(min=NEVER)], dim=-1).log_softmax(-1)


def student_classes(logits: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """(c, V) logits -> (c, k + 1): the student's log probabilities of the teacher's k tokens, and of the rest."""
    logits = logits / temperature
    whole = logits.logsumexp(-1, keepdim=True)
    chosen = logits.gather(-1, ids) - whole
    if ids.shape[-1] == logits.shape[-1]:
        return torch.cat([chosen, torch.full_like(whole, NEVER)], dim=-1)
    rest = logits.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True) - whole
    return torch.cat([chosen, rest], dim=-1)
