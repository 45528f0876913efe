"""The contrastive task loss: CLIP (arXiv 2103.00020, figure 3) with several positives per row (UniCL, 2204.03610)."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import CaptionView, LossInput
from kdkit.plugins.losses.rows import IMAGE, TEXT, mask_rows, row_range


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
        """The student's ``image`` and ``text`` (B, D) and ``logit_scale`` () -> () in [0, inf).

        Of several ranks, each computes its images against all texts. These similarities serve both directions: the
        softmax of a text runs over the images of all ranks.
        """
        captions = batch.captions or _all_different(batch.student[IMAGE])
        used, rows = captions.weight > 0, row_range(batch)
        own, place = slice(rows.start, rows.stop), torch.arange(len(used), device=used.device)
        image = F.normalize(mask_rows(batch.student[IMAGE], used), dim=-1)
        text = F.normalize(mask_rows(batch.student[TEXT], used), dim=-1)
        same = place[own, None] == place
        hidden = ~(used & used[own, None] | same)  # every sample is in its own softmax, so none is empty
        positive = same if self.positives == "own" else (captions.text[own, None] == captions.text) & ~hidden
        if self.positives == "similar":
            positive = positive | (nearly_equal(batch, self.similarity) & ~hidden)
        count = positive.sum(-1, keepdim=True)
        target = positive.to(image.dtype) / count
        logits = batch.student["logit_scale"] * image[own] @ text.T
        terms = _cross_entropy(logits, target, hidden)
        if len(rows) == len(used):
            terms = terms + _cross_entropy(logits.T, target, hidden)
            return (captions.weight * terms).mean() / 2
        target = positive.to(image.dtype) / batch.gather(count.squeeze(-1))  # symmetric, but for the divisor
        columns = _column_cross_entropy(logits, target, hidden, captions.weight, batch)
        return ((captions.weight[own] * terms).sum() + columns) / len(used) / 2


def nearly_equal(batch: LossInput, similarity: float) -> Tensor:
    """(b, B) whether the teachers find two texts of a domain nearly equal, for this rank's rows.

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
    rows = row_range(batch)
    own, alike = slice(rows.start, rows.stop), batch.domain[:, None] == batch.domain
    group = alike.to(torch.uint8).argmax(-1)  # the first sample of each sample's domain
    total = share = batch.student[TEXT].new_zeros(len(rows), len(batch.domain))
    for view in views:
        weight = torch.minimum(view.weight[own, None], view.weight) * alike[own]
        unit = F.normalize(mask_rows(view.target[TEXT], view.weight > 0), dim=-1)
        covered = (view.weight > 0).to(unit.dtype)
        count = torch.zeros_like(covered).index_add(0, group, covered).clamp(min=1)
        mean = torch.zeros_like(unit).index_add(0, group, unit) / count[:, None]
        unit = F.normalize(unit - mean[group], dim=-1)
        total, share = total + weight * (unit[own] @ unit.T), share + weight
    return (share > 0) & (total >= similarity * share)


def _cross_entropy(logits: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """(B,) ``-sum_j target_bj log softmax(logits)_bj`` over the entries that are not hidden."""
    log_p = logits.masked_fill(hidden, -torch.inf).log_softmax(-1)
    return -(target * log_p.masked_fill(hidden, 0)).sum(-1)


def _column_cross_entropy(logits: Tensor, target: Tensor, hidden: Tensor, weight: Tensor, batch: LossInput) -> Tensor:
    """() this rank's share of ``sum_j w_j CE(column j)``, from its rows (b, B) of the similarities.

    Args:
        target: (b, B), with columns that sum to 1 over the rows of all ranks.
    """
    visible = logits.masked_fill(hidden, -torch.inf)
    partial = visible.detach().logsumexp(0, keepdim=True)
    normalizer = batch.gather(partial).logsumexp(0)
    own = cast(Tensor, _ColumnNormalizers.apply(visible, normalizer, weight, batch.rows))
    return own - (weight * target * logits.masked_fill(hidden, 0)).sum()


class _ColumnNormalizers(torch.autograd.Function):
    """``sum_j w_j logsumexp(column j)`` of some rows of a matrix, where the logsumexp over all rows is known.

    The value is that of this rank's columns; the gradient, ``w_j softmax(column j)``, that of its rows in all columns.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, normalizer: Tensor, weight: Tensor, own: slice) -> Tensor:
        ctx.save_for_backward(logits, normalizer, weight)
        return (weight * normalizer)[own].sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        logits, normalizer, weight = ctx.saved_tensors
        return grads[0] * weight * (logits - normalizer).exp(), None, None, None


def _all_different(rows: Tensor) -> CaptionView:
    return CaptionView(torch.ones_like(rows[:, 0]), torch.arange(len(rows), device=rows.device))
