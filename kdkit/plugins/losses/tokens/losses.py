"""Token losses: cross entropy, distillation from top-k distributions, and ULD."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import LossInput
from kdkit.core.contracts.token_signals import HIDDEN, TOKENS
from kdkit.plugins.losses.tokens.chunked import CHUNK
from kdkit.plugins.losses.tokens.divergence import DEFAULT_MIX, DIVERGENCES
from kdkit.plugins.losses.tokens.signals import (
    AnswerTokens,
    StoredDistributions,
    at_temperature,
    read_stored,
    require_temperature,
    student_classes,
    token_teachers,
    within_vocabulary,
)
from kdkit.plugins.losses.tokens.together import TokenSum, together


class AnswerCrossEntropy(nn.Module):
    """``- log q(token)``, mean over the answer tokens of the batch (ClinKD, arXiv 2502.05928, eq. 12).

    Args:
        chunk: tokens whose logits exist at one time.
    """

    def __init__(self, *, chunk: int = CHUNK) -> None:
        super().__init__()
        self.chunk = chunk

    def forward(self, batch: LossInput) -> Tensor:
        """The student's hidden states (B, S, H), output embedding (V, H) and token ids (B, S) -> () in [0, inf)."""
        return together([self], [batch], [1.0])[0]

    def token_sum(self, batch: LossInput) -> TokenSum | None:
        """See :class:`~kdkit.plugins.losses.tokens.together.TokenLoss`."""
        ids = batch.student[TOKENS].long()
        present = ids >= 0
        own = ids[present]
        count = batch.total(batch.student[HIDDEN].new_tensor(float(len(own))))
        if not len(own):
            return None

        def value(logits: Tensor, part: slice) -> Tensor:
            return F.cross_entropy(logits, own[part], reduction="sum")

        return TokenSum(present, value, count, self.chunk)


class TokenDistillation(nn.Module):
    """``D(p || q)`` of each teacher's next-token distribution p and the student's q, mean over tokens by trust.

    Both distributions are those over the teacher's k likeliest tokens and one class for all others, at the
    temperature T. Tokens that the student's vocabulary lacks count among the others. Merging classes never makes a
    divergence larger, and for the KL family with k = V nothing is merged. Divergences of the KL family are multiplied
    by T^2, so that their gradient does not depend on T to first order (arXiv 1503.02531, section 2.1; ClinKD, eq. 13
    and 14).

    Args:
        divergence: one of :data:`~kdkit.plugins.losses.tokens.divergence.DIVERGENCES`.
        mix: beta of ``jsd``, skew of the skewed divergences; None for the published default.
        temperature: T, 0.5 to 16; the mass of the other tokens is exact at 0.5, 1, 2, 4 and 16, and interpolated
            between them. (T < 1 sharpens.)
        noise: standard deviation of normal noise on every class's logit of teacher and student (ClinKD's
            epsilon, eq. 15, whose size the paper does not give; one number for all classes would cancel).
        chunk: tokens whose logits exist at one time.

    Raises:
        KdkitError: an unknown divergence; a mix outside [0, 1], or for a divergence without one; a temperature that no
            stored signal has.
    """

    def __init__(
        self,
        *,
        divergence: str = "forward-kl",
        mix: float | None = None,
        temperature: float = 1.0,
        noise: float = 0.0,
        chunk: int = CHUNK,
    ) -> None:
        super().__init__()
        if divergence not in DIVERGENCES:
            fix = did_you_mean(divergence, tuple(DIVERGENCES))
            raise KdkitError("KD-LOSS-003", f"there is no divergence '{divergence}'", where="token-kd", fix=fix)
        if mix is not None and (divergence not in DEFAULT_MIX or not 0 <= mix <= 1):
            raise KdkitError(
                "KD-LOSS-004",
                f"'{divergence}' takes no mix of {mix:g}",
                where="token-kd",
                fix="choose a mix from 0 to 1" if divergence in DEFAULT_MIX else "remove 'mix' from the recipe",
            )
        require_temperature(temperature)
        self.divergence, self.mix = divergence, DEFAULT_MIX.get(divergence, 0.0) if mix is None else mix
        self.temperature, self.noise, self.chunk = temperature, noise, chunk

    def forward(self, batch: LossInput) -> Tensor:
        """Student states and stored teacher distributions -> () >= 0."""
        return together([self], [batch], [1.0])[0]

    def token_sum(self, batch: LossInput) -> TokenSum | None:
        """See :class:`~kdkit.plugins.losses.tokens.together.TokenLoss`."""
        return _sum_by_trust(batch, self._rows, same_tokens=True, chunk=self.chunk)

    def _rows(self, logits: Tensor, teacher: StoredDistributions, part: slice) -> Tensor:
        """(c,) the divergence at each token."""
        ids = teacher.ids[part]
        log_p = at_temperature(teacher.log_p[part], teacher.tail[part], self.temperature).to(logits.dtype)
        log_p = within_vocabulary(log_p, ids, logits.shape[-1])
        log_q = student_classes(logits, ids, self.temperature)
        if self.noise:
            log_p, log_q = (self._noisy(x) for x in (log_p, log_q))
        rows = DIVERGENCES[self.divergence](log_p, log_q, self.mix)
        return rows if self.divergence == "tvd" else rows * self.temperature**2

    def _noisy(self, log_probability: Tensor) -> Tensor:
        noise = torch.randn_like(log_probability) * self.noise / self.temperature
        return (log_probability + noise).log_softmax(-1)


class UniversalLogitDistillation(nn.Module):
    """L1 distance of the sorted probabilities of teacher and student, token by token (arXiv 2402.12030, eq. 6).

    For teachers with another vocabulary: it compares how the probability mass is spread, not over which tokens.
    Answers are compared position by position up to the end of the shorter one: the k largest probabilities of either
    side, and the remaining mass as one class.

    Args:
        temperature: of both distributions, 0.5 to 16.
        chunk: tokens whose logits exist at one time.
    """

    def __init__(self, *, temperature: float = 1.0, chunk: int = CHUNK) -> None:
        super().__init__()
        require_temperature(temperature)
        self.temperature, self.chunk = temperature, chunk

    def forward(self, batch: LossInput) -> Tensor:
        """Student states and stored teacher distributions -> (), mean over tokens by trust, in [0, 2]."""
        return together([self], [batch], [1.0])[0]

    def token_sum(self, batch: LossInput) -> TokenSum | None:
        """See :class:`~kdkit.plugins.losses.tokens.together.TokenLoss`."""
        return _sum_by_trust(batch, self._rows, same_tokens=False, chunk=self.chunk)

    def _rows(self, logits: Tensor, teacher: StoredDistributions, part: slice) -> Tensor:
        """(c,) the distance at each token."""
        q = (logits / self.temperature).softmax(-1)
        p = at_temperature(teacher.log_p[part], teacher.tail[part], self.temperature).to(q.dtype).exp()
        k = p.shape[-1] - 1
        largest = q.topk(min(k, q.shape[-1]), dim=-1).values
        rest = (1 - largest.sum(-1, keepdim=True)).clamp(min=0)
        largest = F.pad(largest, (0, k - largest.shape[-1]))
        return (p - torch.cat([largest, rest], dim=-1)).abs().sum(-1)


def _sum_by_trust(
    batch: LossInput, rows: Callable[[Tensor, StoredDistributions, slice], Tensor], *, same_tokens: bool, chunk: int
) -> TokenSum | None:
    """The mean of ``rows(logits, teacher, tokens)``, (c,), over tokens and teachers by trust, as a sum.

    Logits are computed only for tokens that a teacher covers.
    """
    views, present = token_teachers(batch), batch.student[TOKENS] >= 0
    if views:
        present = present & (torch.stack([view.weight for view in views]).sum(0) > 0)[:, None]
    answers = AnswerTokens.of(batch, present)
    teachers = [read_stored(view, answers, same_tokens=same_tokens) for view in views]
    mass = batch.total(torch.stack([answers.hidden.new_zeros(()), *(t.weight.sum() for t in teachers)]).sum())
    if not len(answers.ids) or not bool(mass > 0):
        return None

    def value(logits: Tensor, part: slice) -> Tensor:
        return torch.stack([(rows(logits, t, part) * t.weight[part]).sum() for t in teachers]).sum()

    return TokenSum(present, value, mass, chunk)
