"""How good an aligner is. Reconstruction does not tell; what it keeps of the teacher's rankings does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdkit.core.contracts import Aligner

LIMIT = 1000
"""Images, and texts, that are ranked."""


@dataclass(frozen=True)
class AlignerReport:
    """What an aligner does to one teacher, on samples that it was not fitted on.

    Attributes:
        aligner, teacher: names.
        reconstruction: mean cosine of ``decode(encode(x))`` with ``x``, in [-1, 1].
        ranking: Spearman correlation, before against after, of the order in which an image ranks the texts;
            mean over images, in [-1, 1]. This is what zero-shot classification lives on.
        top1: share of images whose nearest text stays the same, in [0, 1].
        gap: mean cosine to another teacher's features of the same sample minus that of different samples,
            in the common space; mean over other teachers and signals. 0: the spaces have nothing in common.
            None without another teacher.
        samples: that were judged.
    """

    aligner: str
    teacher: str
    reconstruction: float
    ranking: float | None
    top1: float | None
    gap: float | None
    samples: int


@torch.no_grad()
def judge_aligner(
    aligner: nn.Module,
    features: Mapping[str, Tensor],
    others: Sequence[Mapping[str, Tensor]] = (),
    *,
    name: str = "",
    teacher: str = "",
) -> AlignerReport:
    """Judge a fitted aligner.

    Args:
        aligner: fulfils :class:`~kdkit.core.contracts.Aligner`.
        features: signal name -> (N, in_dim) of one teacher, N samples that were not used to fit.
        others: the same samples of other teachers, already in the common space: signal name -> (N, out_dim).
        name, teacher: what the report is to say.
    """
    fitted = cast(Aligner, aligner)
    codes = {signal: fitted.encode(signal, x) for signal, x in features.items()}
    back = [
        F.cosine_similarity(fitted.decode(signal, codes[signal]), x, dim=-1).mean() for signal, x in features.items()
    ]
    ranking = top1 = None
    if "image" in features and "text" in features:
        ranking, top1 = ranking_kept(features, codes)
    gaps = [same_minus_different(codes[s], x) for other in others for s, x in other.items() if s in codes]
    return AlignerReport(
        aligner=name,
        teacher=teacher,
        reconstruction=float(torch.stack(back).mean()),
        ranking=ranking,
        top1=top1,
        gap=sum(gaps) / len(gaps) if gaps else None,
        samples=len(next(iter(features.values()))),
    )


def ranking_kept(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> tuple[float, float]:
    """(mean Spearman correlation, share with the same first) of how images rank the different texts."""
    texts = _distinct(before["text"])[:LIMIT]
    first, second = (
        F.normalize(space["image"][:LIMIT], dim=-1) @ F.normalize(space["text"][texts], dim=-1).T
        for space in (before, after)
    )
    same = (first.argmax(1) == second.argmax(1)).float().mean()
    return float(_spearman(first, second).mean()), float(same)


def same_minus_different(a: Tensor, b: Tensor) -> float:
    """Mean cosine of (N, D) rows of equal number, minus that of rows of different numbers."""
    cosine = F.normalize(a[:LIMIT], dim=-1) @ F.normalize(b[:LIMIT], dim=-1).T
    count = len(cosine)
    same = cosine.diagonal().mean()
    different = (cosine.sum() - cosine.diagonal().sum()) / max(1, count * (count - 1))
    return float(same - different)


def _distinct(rows: Tensor) -> Tensor:
    """Indices of the first of each set of equal rows: equal captions would only compare noise."""
    _, group = torch.unique(rows, dim=0, return_inverse=True)
    first = torch.full((int(group.max()) + 1,), len(rows), dtype=torch.long)
    return first.scatter_reduce(0, group, torch.arange(len(rows)), "amin").sort().values


def _spearman(a: Tensor, b: Tensor) -> Tensor:
    """(N,) rank correlation of the rows of two (N, K) tensors; 0 where a row is constant or K is 1."""
    ranks = [x.argsort(-1).argsort(-1).double() for x in (a, b)]
    centered = [r - r.mean(-1, keepdim=True) for r in ranks]
    norm = centered[0].norm(dim=-1) * centered[1].norm(dim=-1)
    return (centered[0] * centered[1]).sum(-1) / torch.where(norm > 0, norm, 1)
