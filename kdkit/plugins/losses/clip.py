"""The contrastive task loss: CLIP (arXiv 2103.00020, figure 3) with several positives per row (UniCL, 2204.03610)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import CaptionView, LossInput
from kdkit.plugins.losses.rows import IMAGE, TEXT, mask_rows, row_range
from kdkit.plugins.losses.similarity_tiles import (
    Tile,
    UnitRows,
    absent_samples,
    add_gradients,
    add_softmaxes_,
    buffers,
    default_rows,
    gathered_normalizers,
    hide_,
    is_bounded,
    is_readable,
    log_normalizers,
    present_rows,
    row_dots,
    shaped,
    similarities,
    tiles,
    weighted,
    with_gradients,
)


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
        absent, rows = absent_samples(captions.weight), row_range(batch)
        image, text = (present_rows(batch.student[name], absent) for name in (IMAGE, TEXT))
        scale, weight = batch.student["logit_scale"], captions.weight / len(captions.weight) / 2  # of two directions
        found = tiles(rows, len(weight), default_rows(weight.device))
        with torch.no_grad():
            positives = self._positives(batch, captions, weight)
            normalizers = log_normalizers(UnitRows.of(image), UnitRows.of(text), scale, found, [absent])
            normalizers = gathered_normalizers(normalizers, batch.gather)[0]
        compute = partial(_cross_entropy, found, weight, normalizers, absent, positives)
        return with_gradients(compute, image, text, scale)

    def _positives(self, batch: LossInput, captions: CaptionView, weight: Tensor) -> _Positives:
        place = torch.arange(len(weight), device=weight.device)
        if self.positives == "own":
            return _Positives(place, weight, True)
        used, first = captions.weight > 0, row_range(batch).start
        text = torch.where(used, captions.text - captions.text.min(), -1 - place)  # unused samples are alone
        if self.positives == "equal":
            ordered = text.sort().values
            count = torch.searchsorted(ordered, text, right=True) - torch.searchsorted(ordered, text)
            distinct = is_readable(weight) and bool((count == 1).all())
            return _Positives(text, weight / count, distinct)
        own = batch.rows
        near = nearly_equal(batch, self.similarity) & used & used[own, None]
        near |= text[own, None] == text
        return _Positives(text, weight / batch.gather(near.sum(-1)), False, near, first)


@dataclass(frozen=True)
class _Positives:
    """Which samples are each other's positives: those of equal ``text`` (B,), or as ``near`` (b, B) says.

    ``share`` (B,) is a sample's weight, divided by the number of its positives. ``distinct``: each is its own alone.
    ``first`` is the sample of the first row of ``near``.
    """

    text: Tensor
    share: Tensor
    distinct: bool
    near: Tensor | None = None
    first: int = 0

    def take_from_(self, slope: Tensor, tile: Tile) -> None:
        """Subtract the targets of both directions."""
        if self.distinct:
            diagonal, place = _diagonal(slope, tile)
            diagonal.sub_(2 * self.share[place])
        else:
            slope.sub_(self._targets(tile))

    def dot(self, logits: Tensor, tile: Tile) -> Tensor:
        """() the sum of target x logit."""
        if self.distinct:
            diagonal, place = _diagonal(logits, tile)
            return 2 * (self.share[place] * diagonal).sum()
        return row_dots(self._targets(tile), logits).sum()

    def _targets(self, tile: Tile) -> Tensor:
        rows, columns = tile
        if self.near is None:
            positive = self.text[rows, None] == self.text[columns]
        else:
            positive = self.near[rows.start - self.first : rows.stop - self.first, columns]
        return torch.where(positive, self.share[rows, None] + self.share[columns], 0)


def _diagonal(found: Tensor, tile: Tile) -> tuple[Tensor, slice]:
    """A tile's entries on the diagonal of the whole matrix, as a view, and their places there."""
    rows, columns = tile
    diagonal = found.diagonal(rows.start - columns.start)
    first = max(rows.start, columns.start)
    return diagonal, slice(first, first + len(diagonal))


def _cross_entropy(
    found: Sequence[Tile],
    weight: Tensor,
    normalizers: Tensor,
    absent: Tensor | None,
    positives: _Positives,
    image: Tensor,
    text: Tensor,
    scale: Tensor,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The weighted sum of both directions' cross-entropies over the tiles' rows, and its gradients."""
    images, texts = UnitRows.of(image), UnitRows.of(text)
    to_image, to_text = torch.zeros_like(image), torch.zeros_like(text)
    scaled, bounded, memory = weighted(normalizers, weight), is_bounded(scale), buffers(2, image, found)
    own = slice(min((rows.start for rows, _ in found), default=0), max((rows.stop for rows, _ in found), default=0))
    value = torch.where(weight > 0, weight * normalizers, 0)[:, own].sum()
    for tile in found:
        logits, slope = similarities(images, texts, tile, memory[0], scale), shaped(memory[1], tile).zero_()
        value -= positives.dot(logits, tile)
        add_softmaxes_(hide_(logits, tile, absent), tile, scaled, slope, slope, bounded=bounded)
        positives.take_from_(slope, tile)
        add_gradients(slope, images, texts, tile, to_image, to_text)
    texts.finish_gradient_(to_text, scale)
    return value.to(image.dtype), (to_image, to_text, images.finish_gradient_(to_image, scale))


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


def _all_different(rows: Tensor) -> CaptionView:
    return CaptionView(torch.ones_like(rows[:, 0]), torch.arange(len(rows), device=rows.device))
