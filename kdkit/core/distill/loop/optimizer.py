"""The optimizer of a run."""

from __future__ import annotations

import torch
from torch import nn

from kdkit.core.distill.plan.types import TrainSettings


def make_optimizer(task: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW over every trainable parameter; no weight decay on vectors and scalars (norms, biases, scales)."""
    trainable = [p for p in task.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.lr, betas=settings.betas)
