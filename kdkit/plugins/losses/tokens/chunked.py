"""A function of the logits of many tokens whose (tokens, vocabulary) matrix never exists as a whole.

One chunk's logits are made, their value and gradient taken, and dropped; nothing is computed twice, so the
time is that of the plain way. (The idea is known from fused linear losses, e.g. arXiv 2410.10989, section 3.2.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

CHUNK = 64
"""Tokens whose logits exist at one time, by default: 39 MB of float32 at a vocabulary of 151,936."""

Value = Callable[[Tensor, slice], Tensor]
"""(logits (c, V) float32, which tokens they are) -> (): the sum over these tokens."""


def sum_over_tokens(hidden: Tensor, embedding: Tensor, value: Value, *, chunk: int = CHUNK) -> Tensor:
    """``sum over chunks of value(hidden[chunk] @ embedding.T, chunk)``, with its exact gradient.

    Args:
        hidden: (N, H) states that predict N tokens.
        embedding: (V, H) the output embedding.
        value: differentiable once; sees chunks in order and must not depend on how tokens are cut.
        chunk: tokens at one time.

    Returns:
        () in float32 (float64 for float64 states). Gradients reach ``hidden`` and ``embedding``; there is no
        second derivative.
    """
    return cast(Tensor, _SumOverTokens.apply(hidden, embedding, value, chunk))


class _SumOverTokens(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, embedding: Tensor, value: Value, chunk: int) -> Tensor:
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        needs_hidden, needs_embedding = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_embedding = torch.zeros_like(embedding, dtype=wide) if needs_embedding else None
        total = hidden.new_zeros((), dtype=wide)
        for start in range(0, len(hidden), chunk):
            part = slice(start, min(start + chunk, len(hidden)))
            states = hidden[part].to(embedding.dtype)
            logits = (states @ embedding.T).to(wide).requires_grad_(needs_hidden or needs_embedding)
            with torch.enable_grad():
                found = value(logits, part)
            total += found.detach()
            if not found.requires_grad:
                _no_gradient(grad_hidden, part)
                continue
            (slope,) = torch.autograd.grad(found, logits)
            if grad_hidden is not None:
                grad_hidden[part] = (slope.to(embedding.dtype) @ embedding).to(hidden.dtype)
            if grad_embedding is not None:
                grad_embedding.addmm_(slope.T, states.to(wide))
        ctx.save_for_backward(grad_hidden, None if grad_embedding is None else grad_embedding.to(embedding.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (scale,) = upstream
        grad_hidden, grad_embedding = ctx.saved_tensors
        return (
            None if grad_hidden is None else grad_hidden * scale.to(grad_hidden.dtype),
            None if grad_embedding is None else grad_embedding * scale.to(grad_embedding.dtype),
            None,
            None,
        )


def _no_gradient(grad: Tensor | None, part: slice) -> None:
    if grad is not None:
        grad[part] = 0
