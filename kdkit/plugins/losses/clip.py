"""The contrastive task loss of CLIP (Radford et al., arXiv 2103.00020, figure 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.core.contracts import LossInput
from kdkit.plugins.losses.rows import IMAGE, TEXT


class ClipLoss(nn.Module):
    """``1/2 [CE(c s_I s_T') + CE(c s_T s_I')]`` with unit rows ``s`` and the student's own scale ``c``.

    It needs no teacher: it is what a student learns in domains that no teacher covers.
    """

    def forward(self, batch: LossInput) -> Tensor:
        """``image``, ``text`` (B, D) and ``logit_scale`` () of the student -> ()."""
        image = F.normalize(batch.student[IMAGE], dim=-1)
        text = F.normalize(batch.student[TEXT], dim=-1)
        logits = batch.student["logit_scale"] * image @ text.T
        own = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
