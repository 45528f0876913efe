"""The contrastive task loss: CLIP (arXiv 2103.00020, figure 3) with several positives per row (UniCL, 2204.03610)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import CaptionView, LossInput
from kdkit.plugins.losses.rows import IMAGE, TEXT, mask_rows


class ClipLoss(nn.Module):
    """``1/B sum_b w_b 1/2 [CE(c s_I s_T', y)_b + CE(c s_T s_I', y)_b]`` with unit rows ``s`` and the student's scale
    ``c``. Reads no teacher.

    ``w`` are the caption weights. Row b of the targets ``y`` is uniform over the samples with the text of b (UniCL,
    eq. 3 and 4): with 64 samples of 35 classes, most texts occur more than once, and CLIP's own loss would push equal
    texts apart. Samples with ``w = 0`` are in no other sample's softmax.

    Args:
        positives: ``equal``: all samples with an equal text; ``own``: the sample's own alone, as in CLIP; ``similar``:
            also those with texts that the teachers find nearly equal (:func:`nearly_equal`).
        similarity: of nearly equal texts, a cosine in (0, 1].

    Raises:
        KdkitError: ``similar`` without a teacher of texts; a similarity out of range.

    Example:
        >>> rows = torch.eye(2)
        >>> student = {"image": rows, "text": rows, "logit_scale": torch.tensor(100.0)}
        >>> round(float(ClipLoss()(LossInput(student, (), torch.zeros(2)))), 4)
        0.0
    """

    def __init__(self, *, positives: Literal["equal", "own", "similar"] = "equal", similarity: float = 0.7) -> None:
        super().__init__()
        if not 0 < similarity <= 1:
            raise KdkitError(
                "KD-LOSS-161",
                f"{similarity:g} is no cosine of nearly equal texts",
                where="recipe: losses, clip, similarity",
                fix="choose a number above 0 and up to 1, such as 0.7",
            )
        self.positives, self.similarity = positives, similarity

    @property
    def needed_signals(self) -> tuple[str, ...]:
        """``similar`` compares texts by the teachers' text features."""
        return (TEXT,) if self.positives == "similar" else ()

    def forward(self, batch: LossInput) -> Tensor:
        """The student's ``image`` and ``text`` (B, D) and ``logit_scale`` () -> () in [0, inf)."""
        captions = batch.captions or _all_different(batch.student[IMAGE])
        used = captions.weight > 0
        image = F.normalize(mask_rows(batch.student[IMAGE], used), dim=-1)
        text = F.normalize(mask_rows(batch.student[TEXT], used), dim=-1)
        own = torch.eye(len(used), dtype=torch.bool, device=used.device)
        hidden = ~(used & used[:, None] | own)  # every sample is in its own softmax, so none is empty
        positive = own if self.positives == "own" else (captions.text[:, None] == captions.text) & ~hidden
        if self.positives == "similar":
            positive = positive | (nearly_equal(batch, self.similarity) & ~hidden)
        target = positive.to(image.dtype) / positive.sum(-1, keepdim=True)
        logits = batch.student["logit_scale"] * image @ text.T
        rows = _cross_entropy(logits, target, hidden) + _cross_entropy(logits.T, target, hidden)
        return (captions.weight * rows).mean() / 2


def nearly_equal(batch: LossInput, similarity: float) -> Tensor:
    """(B, B) whether the teachers find two texts of a domain nearly equal.

    Each teacher's unit text features are centered over its samples of the domain in the batch: all medical texts are
    alike for some teachers, and what is left tells them apart. The cosines of the centered features count, each with
    the smaller of the teacher's two trust weights; their weighted mean is at least ``similarity``. A pair that no
    teacher covers is not nearly equal.

    Raises:
        KdkitError: no teacher gives text features.
    """
    views = [view for view in batch.teachers if TEXT in view.target]
    if not views:
        raise KdkitError(
            "KD-LOSS-160",
            "the loss 'clip' compares texts by the teachers' text features, and no teacher gives any",
            where="recipe: losses, clip, positives: similar",
            fix="write 'positives: equal', or add a teacher with text features",
            code=ExitCode.FOUND,
        )
    total = share = batch.student[TEXT].new_zeros(len(batch.domain), len(batch.domain))
    for view in views:
        weight = torch.minimum(view.weight[:, None], view.weight) * (batch.domain[:, None] == batch.domain)
        rows = F.normalize(mask_rows(view.target[TEXT], view.weight > 0), dim=-1)
        together = (weight > 0).to(rows.dtype)
        mean = together @ rows / together.sum(-1, keepdim=True).clamp(min=1)
        rows = F.normalize(rows - mean, dim=-1)
        total, share = total + weight * (rows @ rows.T), share + weight
    return (share > 0) & (total >= similarity * share)


def _cross_entropy(logits: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """(B,) ``-sum_j target_bj log softmax(logits)_bj`` over the entries that are not hidden."""
    log_p = logits.masked_fill(hidden, -torch.inf).log_softmax(-1)
    return -(target * log_p.masked_fill(hidden, 0)).sum(-1)


def _all_different(rows: Tensor) -> CaptionView:
    return CaptionView(torch.ones_like(rows[:, 0]), torch.arange(len(rows), device=rows.device))
