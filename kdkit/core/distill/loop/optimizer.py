"""The optimizer of a run."""

from __future__ import annotations

import torch
from torch import nn

from kdkit.core.distill.plan.types import TrainSettings


def make_optimizer(task: nn.Module, settings: TrainSettings, *, fused: bool = False) -> torch.optim.AdamW:
    """AdamW over every trainable parameter; no weight decay on vectors and scalars (norms, biases, scales).

    Scalars are a group of their own: sharding leaves them whole, and torch steps over one kind of tensor at a time.

    Args:
        fused: in one kernel, which can leave everything as it is where the device says so (``found_inf``).
    """
    trainable = [p for p in task.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim == 1], "weight_decay": 0.0},
        {"params": [p for p in trainable if not p.ndim], "weight_decay": 0.0},
    ]
    used = [group for group in groups if group["params"]]
    return torch.optim.AdamW(used, lr=settings.lr, betas=settings.betas, fused=fused or None)
