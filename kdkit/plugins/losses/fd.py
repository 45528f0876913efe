"""Feature distillation (CLIP-KD, arXiv 2307.12732, section 3.2.2; MMKD-CLIP, arXiv 2506.22567)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.core.contracts import LossInput, TeacherView
from kdkit.plugins.losses.rows import AverageOver, mask_rows, mean_distance


class FeatureDistillation(nn.Module):
    """``sum over signals of |s - t|^2``, averaged over the (teacher, sample) pairs by trust.

    Args:
        reduction: over the D features of a row, ``sum`` (the squared distance; 2 - 2 cos for unit rows) or
            ``mean`` (as CLIP-KD's and MMKD-CLIP's code has it, which is D times smaller).
        unit: scale the student's rows to length 1 first, as both papers do. False for
            standardized targets (``standardize``, ``phi-s``), whose length carries information.
        average_over: unit of the average, see :func:`~kdkit.plugins.losses.rows.average_weights`.
    """

    def __init__(
        self,
        *,
        reduction: Literal["sum", "mean"] = "sum",
        unit: bool = True,
        average_over: AverageOver = "pairs",
    ) -> None:
        super().__init__()
        self.reduction, self.unit, self.average_over = reduction, unit, average_over

    def forward(self, batch: LossInput) -> Tensor:
        """Teacher signals (B, D) against the student's outputs of those names, where they exist -> () >= 0."""
        return mean_distance(batch, self._distance, self.average_over)

    def _distance(self, view: TeacherView) -> Tensor:
        """(B,); 0 in rows without weight."""
        keep = view.weight > 0
        total = torch.zeros_like(view.weight)
        for signal in [name for name in view.target if name in view.student]:
            student = mask_rows(view.student[signal], keep)
            if self.unit:
                student = F.normalize(student, dim=-1)
            square = (student - mask_rows(view.target[signal], keep)).square()
            total = total + (square.sum(-1) if self.reduction == "sum" else square.mean(-1))
        return total
