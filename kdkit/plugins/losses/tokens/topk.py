"""A teacher's stored next-token distribution, at a temperature, and the student's over the same classes.

:mod:`kdkit.core.contracts.token_signals` says what is stored.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts.token_signals import NEVER, NOT_KNOWN, TEMPERATURES


def at_temperature(log_p: Tensor, tail: Tensor, temperature: float) -> Tensor:
    """(N, k + 1) log of the teacher's distribution at ``temperature``: the k tokens, then all others as one class.

    Raises:
        KdkitError: for a temperature whose rest was not stored, or is not known.
    """
    if temperature not in TEMPERATURES:
        raise KdkitError(
            "KD-LOSS-005",
            f"the stored signals do not tell a teacher's distribution at temperature {temperature:g}",
            fix=f"choose one of {', '.join(f'{t:g}' for t in TEMPERATURES)}",
        )
    rest = tail[:, TEMPERATURES.index(temperature), None]
    if temperature > 1 and bool((rest >= NOT_KNOWN).any()):
        raise KdkitError(
            "KD-LOSS-006",
            f"a teacher does not tell its distribution at temperature {temperature:g}",
            why="a server names its likeliest tokens alone, and the others count the more at high temperatures",
            fix="choose 1 or 0.5 as temperature of the loss",
        )
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
