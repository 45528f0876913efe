"""Sums over the logits of many tokens without the whole (tokens, vocabulary) matrix.

The logits of one chunk are computed, reduced to values and gradient, and dropped. Nothing is computed twice, so the
time equals that of the plain computation. (As in fused linear losses, e.g. arXiv 2410.10989, section 3.2.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

CHUNK = 96
"""Default number of tokens with logits in memory: 58 MB of float32 at a vocabulary of 151,936. Fewer rows make slower
matrix products."""
ELEMENTS = 2**19
"""Logits per evaluation of ``values``, so that its temporaries fit the processor's cache."""

Values = Callable[[Tensor, slice], Tensor]
"""(logits (c, V) float32, slice of their tokens) -> (n,): n sums over these tokens. Must not change the logits."""


def sums_over_tokens(
    hidden: Tensor, embedding: Tensor, values: Values, weights: Tensor, *, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """``sum over chunks of values(hidden[chunk] @ embedding.T, chunk)``, and their weighted total with its gradient.

    One product with the embedding gives the logits of all n sums, and one more each gives the gradients of states and
    embedding. The gradient of a block of rows overwrites its logits.

    Args:
        hidden: (N, H) states that predict N tokens.
        embedding: (V, H) the output embedding.
        values: differentiable once; receives chunks in order and must not depend on their boundaries.
        weights: (n,) of the sums in the total, constants.
        chunk: tokens at one time.

    Returns:
        The total () with exact gradients for ``hidden`` and ``embedding``, and the sums (n,) without; both float32
        (float64 for float64 states). There is no second derivative.
    """
    return cast(tuple[Tensor, Tensor], _SumsOverTokens.apply(hidden, embedding, values, weights, chunk))


class _SumsOverTokens(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, embedding: Tensor, values: Values, weights: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor]:
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        needs_hidden, needs_embedding = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_embedding = torch.zeros_like(embedding, dtype=wide) if needs_embedding else None
        weights = weights.to(wide)
        sums = torch.zeros_like(weights)
        for start in range(0, len(hidden), chunk):
            part = slice(start, min(start + chunk, len(hidden)))
            states = hidden[part].to(embedding.dtype)
            logits = (states @ embedding.T).to(wide)
            sums += _into_slopes(logits, values, weights, start)
            if grad_hidden is not None:
                grad_hidden[part] = (logits.to(embedding.dtype) @ embedding).to(hidden.dtype)
            if grad_embedding is not None:
                grad_embedding.addmm_(logits.T, states.to(wide))
        ctx.save_for_backward(grad_hidden, None if grad_embedding is None else grad_embedding.to(embedding.dtype))
        ctx.mark_non_differentiable(sums)
        return (sums * weights).sum(), sums

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        scale = upstream[0]
        grad_hidden, grad_embedding = ctx.saved_tensors
        return (
            None if grad_hidden is None else grad_hidden * scale.to(grad_hidden.dtype),
            None if grad_embedding is None else grad_embedding * scale.to(grad_embedding.dtype),
            None,
            None,
            None,
        )


def _into_slopes(logits: Tensor, values: Values, weights: Tensor, start: int) -> Tensor:
    """The values (n,) of these logits, which are overwritten by the gradient of their weighted sum."""
    totals = torch.zeros_like(weights)
    rows = max(1, ELEMENTS // logits.shape[1])
    for first in range(0, len(logits), rows):
        block = logits[first : first + rows]
        leaf = block.detach().clone().requires_grad_()
        with torch.enable_grad():
            found = values(leaf, slice(start + first, start + first + len(block)))
            total = (found * weights).sum()
        totals += found.detach()
        if total.requires_grad:
            (slope,) = torch.autograd.grad(total, leaf)
            block.copy_(slope)
        else:
            block.zero_()
    return totals
