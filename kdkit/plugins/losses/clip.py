"""The contrastive task loss: CLIP (arXiv 2103.00020, figure 3) with several positives per row (UniCL, 2204.03610)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.core.contracts import CaptionView, LossInput
from kdkit.plugins.losses.rows import IMAGE, TEXT, mask_rows


class ClipLoss(nn.Module):
    """``1/B sum_b w_b 1/2 [CE(c s_I s_T', y)_b + CE(c s_T s_I', y)_b]`` with unit rows ``s`` and the student's scale
    ``c``. Reads no teacher.

    ``w`` are the caption weights. Row b of the targets ``y`` is uniform over the samples with the text of b (UniCL,
    eq. 3 and 4): with 64 samples of 35 classes, most texts occur more than once, and CLIP's own loss would push equal
    texts apart. Samples with ``w = 0`` are in no other sample's softmax.

    Args:
        positives: ``equal``: all samples with an equal text; ``own``: the sample's own alone, as in CLIP.

    Example:
        >>> rows = torch.eye(2)
        >>> student = {"image": rows, "text": rows, "logit_scale": torch.tensor(100.0)}
        >>> round(float(ClipLoss()(LossInput(student, (), torch.zeros(2)))), 4)
        0.0
    """

    def __init__(self, *, positives: Literal["equal", "own"] = "equal") -> None:
        super().__init__()
        self.positives = positives

    def forward(self, batch: LossInput) -> Tensor:
        """The student's ``image`` and ``text`` (B, D) and ``logit_scale`` () -> () in [0, inf)."""
        captions = batch.captions or _all_different(batch.student[IMAGE])
        used = captions.weight > 0
        image = F.normalize(mask_rows(batch.student[IMAGE], used), dim=-1)
        text = F.normalize(mask_rows(batch.student[TEXT], used), dim=-1)
        own = torch.eye(len(used), dtype=torch.bool, device=used.device)
        hidden = ~(used & used[:, None] | own)  # every sample is in its own softmax, so none is empty
        positive = own if self.positives == "own" else (captions.text[:, None] == captions.text) & ~hidden
        target = positive / positive.sum(-1, keepdim=True)
        logits = batch.student["logit_scale"] * image @ text.T
        rows = _cross_entropy(logits, target, hidden) + _cross_entropy(logits.T, target, hidden)
        return (captions.weight * rows).mean() / 2


def _cross_entropy(logits: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """(B,) ``-sum_j target_bj log softmax(logits)_bj`` over the entries that are not hidden."""
    log_p = logits.masked_fill(hidden, -torch.inf).log_softmax(-1)
    return -(target * log_p.masked_fill(hidden, 0)).sum(-1)


def _all_different(rows: Tensor) -> CaptionView:
    return CaptionView(torch.ones_like(rows[:, 0]), torch.arange(len(rows), device=rows.device))
