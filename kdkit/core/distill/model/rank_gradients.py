"""The gradients of losses that several ranks compute together, so that they are those of one process.

A row of the student's output is a key in the losses of all ranks, so its gradient is a sum over ranks. The losses'
backward pass runs here, within the task's forward pass, and every rank makes the same collective calls in the same
order. In the backward pass itself they would come between those of DistributedDataParallel, in an order that depends on
which teachers a rank's rows have. It also frees the losses' memory before the student's backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdkit.core.distill.loop.distributed import all_reduce_sum, gather_rows, get_world_size, own_rows

Outputs = Mapping[str, Tensor]


class GatheredOutputs:
    """A student's outputs as leaves of the losses' graph: this rank's rows, and on demand those of the global batch.

    Parameters and scalars, such as the logit scale, have no rows: they are the same on all ranks.

    Args:
        outputs: of this rank's samples.
    """

    def __init__(self, outputs: Outputs) -> None:
        self.own = {name: x.detach().requires_grad_(x.requires_grad) for name, x in outputs.items()}
        self._rows = [name for name, x in outputs.items() if x.ndim and not isinstance(x, nn.Parameter)]
        self._gathered: dict[str, Tensor] = {}

    def whole(self) -> dict[str, Tensor]:
        """The outputs for the global batch; the first call is a collective one."""
        for name in self._rows:
            if name not in self._gathered:
                self._gathered[name] = gather_rows(self.own[name]).requires_grad_(self.own[name].requires_grad)
        return {**self.own, **self._gathered}

    @property
    def leaves(self) -> dict[str, Tensor]:
        """Everything that gets a gradient."""
        own = {name: x for name, x in self.own.items() if x.requires_grad}
        return own | {f"{name} of all": x for name, x in self._gathered.items() if x.requires_grad}

    def gradients(self, found: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """Output -> its gradient: of this rank's graph, and of all ranks' where rows were gathered.

        Args:
            found: leaf -> its gradient on this rank.
        """
        gradients: dict[str, Tensor] = {}
        for name, x in self.own.items():
            parts = [found.get(name)]
            if name in self._gathered and x.requires_grad:
                parts.append(self._summed(self._gathered[name], found[f"{name} of all"]))
            present = [part for part in parts if part is not None]
            if present:
                gradients[name] = present[0] if len(present) == 1 else present[0] + present[1]
        return gradients

    def _summed(self, leaf: Tensor, gradient: Tensor | None) -> Tensor | None:
        """This rank's rows of the sum over ranks; None if no rank's losses used them."""
        total = all_reduce_sum(torch.zeros_like(leaf) if gradient is None else gradient)[own_rows(len(leaf))]
        return None if gradient is None and not total.any() else total


def losses_over_ranks(
    outputs: Outputs,
    parameters: Iterable[nn.Parameter],
    losses: Callable[[GatheredOutputs], Sequence[Tensor]],
    weights: Sequence[float],
    shared: Sequence[bool],
    *,
    uniform: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    """The weighted sum of losses (), and the value () of each, of the global batch; a collective call.

    The sum's gradient is made for DistributedDataParallel and FSDP, which average over ranks. A loss that each rank
    computes in part counts world-size times, one that each computes as a whole, once.

    Args:
        parameters: of heads and losses.
        losses: their values on this rank.
        weights: of the losses.
        shared: whether a loss's value is the sum over ranks.
        uniform: a tensor that has a gradient on one rank gets one on all, as FSDP requires.
    """
    gathered = GatheredOutputs(outputs)
    values = list(losses(gathered))
    sums = all_reduce_sum(torch.stack(values))
    totals = [one if part else value.detach() for one, value, part in zip(sums, values, shared, strict=True)]
    total = torch.stack([weight * value for weight, value in zip(weights, totals, strict=True)]).sum()
    world = get_world_size()
    scales = [weight * world if part else weight for weight, part in zip(weights, shared, strict=True)]
    objective = torch.stack([scale * value for scale, value in zip(scales, values, strict=True)]).sum()
    leaves, trained = gathered.leaves, [p for p in parameters if p.requires_grad]
    found: Sequence[Tensor | None] = [None] * (len(leaves) + len(trained))
    if objective.requires_grad:  # it need not, on a rank whose rows teach nothing; the others wait for it below
        found = torch.autograd.grad(objective, [*leaves.values(), *trained], allow_unused=True)
    by_output = gathered.gradients(dict(zip(leaves, found, strict=False)))
    trainable = [(x, by_output.get(name)) for name, x in outputs.items() if x.requires_grad]
    trainable += zip(trained, found[len(leaves) :], strict=True)
    if uniform:
        trainable = _uniform(trainable)
    used = [(x, gradient) for x, gradient in trainable if gradient is not None]
    used = used or [(x, torch.zeros_like(x)) for x, _ in trainable]
    if not used:
        return total, totals
    return cast(Tensor, _WithGradients.apply(total, [g for _, g in used], *(x for x, _ in used))), totals


def _uniform(pairs: Sequence[tuple[Tensor, Tensor | None]]) -> list[tuple[Tensor, Tensor | None]]:
    """Zeros for gradients that other ranks have; a collective call."""
    present = all_reduce_sum(torch.tensor([float(g is not None) for _, g in pairs], device=pairs[0][0].device))
    return [
        (x, torch.zeros_like(x) if g is None and n else g) for (x, g), n in zip(pairs, present.tolist(), strict=True)
    ]


class _WithGradients(torch.autograd.Function):
    """A value whose gradients with respect to its inputs are known."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor], *_inputs: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(grads[0] * gradient for gradient in ctx.gradients)
