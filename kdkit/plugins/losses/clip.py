"""The contrastive task loss of CLIP (Radford et al., arXiv 2103.00020, figure 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.core.contracts import LossInput
from kdkit.plugins.losses.rows import IMAGE, TEXT


class ClipLoss(nn.Module):
    """``1/2 [CE(c s_I s_T') + CE(c s_T s_I')]`` with unit rows ``s`` and the student's scale ``c``. Reads no teacher.

    Example:
        >>> rows = torch.eye(2)
        >>> student = {"image": rows, "text": rows, "logit_scale": torch.tensor(100.0)}
        >>> round(float(ClipLoss()(LossInput(student, (), torch.zeros(2)))), 4)
        0.0
    """

    def forward(self, batch: LossInput) -> Tensor:
        """The student's ``image`` and ``text`` (B, D) and ``logit_scale`` () -> () in [0, inf)."""
        image = F.normalize(batch.student[IMAGE], dim=-1)
        text = F.normalize(batch.student[TEXT], dim=-1)
        logits = batch.student["logit_scale"] * image @ text.T
        own = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
