"""Divergences of the student's next-token distribution q from the teacher's p, in log space.

``log_p`` and ``log_q`` are (c, n), each row normalized and finite: impossible classes have ``NEVER``, whose exponential
is 0, so that 0 times infinity never occurs. Results are (c,).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Divergence = Callable[[Tensor, Tensor, float], Tensor]


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) = sum p (log p - log q).

    Example:
        >>> p = torch.tensor([[0.5, 0.5]]).log()
        >>> kl(p, torch.tensor([[0.25, 0.75]]).log())
        tensor([0.1438])
    """
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)


def mixture(log_p: Tensor, log_q: Tensor, share: float) -> Tensor:
    """log(share p + (1 - share) q), for 0 < share < 1."""
    return torch.logaddexp(log_p + _log(share, log_p), log_q + _log(1 - share, log_q))


def _log(share: float, like: Tensor) -> Tensor:
    return torch.tensor(share, dtype=like.dtype, device=like.device).log()


def forward_kl(log_p: Tensor, log_q: Tensor, _: float) -> Tensor:
    """KL(p || q) (Hinton et al., arXiv 1503.02531; ClinKD, arXiv 2502.05928, eq. 14)."""
    return kl(log_p, log_q)


def reverse_kl(log_p: Tensor, log_q: Tensor, _: float) -> Tensor:
    """KL(q || p) (MiniLLM, arXiv 2306.08543, eq. 1)."""
    return kl(log_q, log_p)


def jsd(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q (GKD, arXiv 2306.13649, eq. 1).

    At beta 0 and 1 it would be 0 everywhere; as in GKD these are forward and reverse KL, the limits of
    JSD / beta and JSD / (1 - beta).
    """
    if beta in (0.0, 1.0):
        return kl(log_p, log_q) if beta == 0.0 else kl(log_q, log_p)
    middle = mixture(log_p, log_q, beta)
    return beta * kl(log_p, middle) + (1 - beta) * kl(log_q, middle)


def skewed_kl(log_p: Tensor, log_q: Tensor, skew: float) -> Tensor:
    """KL(p || skew p + (1 - skew) q), at most -log(skew) (DistiLLM, arXiv 2402.03898, eq. 4)."""
    return kl(log_p, mixture(log_p, log_q, skew) if skew else log_q)


def skewed_reverse_kl(log_p: Tensor, log_q: Tensor, skew: float) -> Tensor:
    """KL(q || (1 - skew) p + skew q) (DistiLLM, section 3.1)."""
    return kl(log_q, mixture(log_q, log_p, skew) if skew else log_p)


def total_variation(log_p: Tensor, log_q: Tensor, _: float) -> Tensor:
    """1/2 sum |p - q|, in [0, 1] (f-distill, arXiv 2307.15190, table 1)."""
    return (log_p.exp() - log_q.exp()).abs().sum(-1) / 2


DIVERGENCES: Mapping[str, Divergence] = {
    "forward-kl": forward_kl,
    "reverse-kl": reverse_kl,
    "jsd": jsd,
    "skewed-kl": skewed_kl,
    "skewed-reverse-kl": skewed_reverse_kl,
    "tvd": total_variation,
}
DEFAULT_MIX = {"jsd": 0.5, "skewed-kl": 0.1, "skewed-reverse-kl": 0.1}
"""Default of GKD's beta and DistiLLM's skew; the other divergences have no such number."""
