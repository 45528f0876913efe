"""Losses over answer tokens from one pass over the logits: cross entropy and distillation share the projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from kdkit.core.contracts import Loss, LossInput
from kdkit.core.contracts.token_signals import HIDDEN
from kdkit.plugins.losses.tokens.chunked import sums_over_tokens
from kdkit.plugins.losses.tokens.signals import AnswerTokens


class Value(Protocol):
    """The sum () over the tokens ``part`` of a :class:`TokenSum`, whose logits are (c, V)."""

    def __call__(self, logits: Tensor, part: slice) -> Tensor: ...


@dataclass(frozen=True)
class TokenSum:
    """A loss as a sum over answer tokens.

    Attributes:
        present: (B, A) bool, the tokens that it reads; ``part`` of :class:`Value` counts these, row by row.
        value: of some of them.
        divisor: () of the whole sum; the same on all ranks.
        chunk: the most tokens whose logits may exist at one time.
    """

    present: Tensor
    value: Value
    divisor: Tensor
    chunk: int


class TokenLoss(Protocol):
    """A loss that reads logits."""

    def token_sum(self, batch: LossInput) -> TokenSum | None:
        """The loss as a sum; None if it is 0. It may call ``batch.total``, always equally often."""
        ...


def together(
    losses: Sequence[Loss], batches: Sequence[LossInput], weights: Sequence[float]
) -> tuple[Tensor, Sequence[Tensor]]:
    """See ``contracts.JointLosses``: the logits of a token are computed once for all losses that read it.

    A loss that reads fewer tokens than another, as one whose teachers know some samples alone, gets the rows of its
    own.
    """
    found = [cast(TokenLoss, loss).token_sum(batch) for loss, batch in zip(losses, batches, strict=True)]
    terms = [(number, term) for number, term in enumerate(found) if term is not None]
    zero = _zero_with_graph(batches[0])
    values = [zero.detach() for _ in losses]
    if not terms:
        return zero, values
    present = torch.stack([term.present for _, term in terms]).any(0)
    answers = AnswerTokens.of(batches[0], present)
    parts = [_Part.of(term, present) for _, term in terms]
    divisors = torch.stack([term.divisor for _, term in terms])
    scales = divisors.new_tensor([weights[number] for number, _ in terms]) / divisors
    total, sums = sums_over_tokens(
        answers.hidden,
        answers.embedding,
        lambda logits, part: torch.stack([one.value(logits, part) for one in parts]),
        scales,
        chunk=min(term.chunk for _, term in terms),
    )
    for (number, _), value in zip(terms, sums / divisors, strict=True):
        values[number] = value
    return total, values


@dataclass(frozen=True)
class _Part:
    """A :class:`TokenSum` among the N tokens of a pass.

    Attributes:
        kept: (N,) bool, its own tokens; None if all are.
        before: how many of them precede each of the N, and how many there are.
    """

    term: TokenSum
    kept: Tensor | None
    before: Sequence[int]

    @classmethod
    def of(cls, term: TokenSum, present: Tensor) -> _Part:
        kept = term.present[present]
        if bool(kept.all()):
            return cls(term, None, ())
        return cls(term, kept, [0, *kept.cumsum(0).tolist()])

    def value(self, logits: Tensor, part: slice) -> Tensor:
        """The sum over its own tokens of ``part``, whose logits are (c, V)."""
        if self.kept is None:
            return self.term.value(logits, part)
        own = slice(self.before[part.start], self.before[part.stop])
        if own.start == own.stop:
            return logits.new_zeros(())
        if own.stop - own.start < len(logits):
            logits = logits[self.kept[part]]
        return self.term.value(logits, own)


def _zero_with_graph(batch: LossInput) -> Tensor:
    """A scalar 0 with a gradient of 0 for the hidden states."""
    hidden = batch.student[HIDDEN]
    return torch.where(torch.zeros_like(hidden, dtype=torch.bool), hidden, 0).sum()
