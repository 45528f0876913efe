"""The loss, imported on first use."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from kdkit import KdkitError, LossInput, TeacherView
from torch import Tensor, nn


class Huber(nn.Module):
    """Huber's distance (Annals of Mathematical Statistics 35, 1964) between student and teacher rows.

    Per dimension ``e**2 / 2`` where ``|e| <= delta``, else ``delta * (|e| - delta / 2)``: a row that no student
    can follow pulls with a bounded force. Averaged over (teacher, sample) pairs by trust.

    Args:
        delta: where the square turns into a line, > 0.
    """

    def __init__(self, *, delta: float) -> None:
        super().__init__()
        if delta <= 0:
            raise KdkitError("EXAMPLE-001", f"delta is {delta}", fix="set it above 0")
        self.delta = delta

    def forward(self, batch: LossInput) -> Tensor:
        """Teachers' targets (B, D_t) against the student in the same space -> ()."""
        nothing = torch.stack([output.sum() * 0 for output in batch.student.values()]).sum()  # zero with a graph
        if not batch.teachers:
            return nothing
        weights = torch.stack([view.weight for view in batch.teachers])  # (T, B)
        distances = torch.stack([self._distance(view) for view in batch.teachers])
        return nothing + (weights * distances).sum() / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)

    def _distance(self, view: TeacherView) -> Tensor:
        """(B,); rows of weight 0 are replaced before any arithmetic, so that nothing in them matters."""
        counts = (view.weight > 0).unsqueeze(-1)
        distance = torch.zeros_like(view.weight)
        for signal, student in view.student.items():  # the targets may hold signals that other losses read
            error = torch.where(counts, student - view.target[signal], 0)
            huber = F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=self.delta)
            distance = distance + huber.mean(dim=-1)
        return distance
