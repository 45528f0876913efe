"""The tokens of a batch's answers that count, and each teacher's view of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import LossInput, TeacherView
from kdkit.core.contracts.token_signals import EMBEDDING, HIDDEN, TOKENS


@dataclass(frozen=True)
class Answers:
    """The N answer tokens of a batch, in the order of the samples.

    Attributes:
        hidden: (N, H) states that predict them; ``embedding``: (V, H).
        ids: (N,) the tokens; ``sample``, ``place``: (N,) where each stands.
    """

    hidden: Tensor
    embedding: Tensor
    ids: Tensor
    sample: Tensor
    place: Tensor

    @classmethod
    def of(cls, batch: LossInput, samples: Tensor | None = None) -> Answers:
        """Those of the samples that ``samples`` (B,) marks; of all without it."""
        ids = batch.student[TOKENS].long()
        present = ids >= 0
        if samples is not None:
            present = present & samples[:, None]
        sample, place = present.nonzero(as_tuple=True)
        hidden = batch.student[HIDDEN][sample, place]
        return cls(hidden, batch.student[EMBEDDING], ids[sample, place], sample, place)

    def nothing(self, batch: LossInput) -> Tensor:
        """A scalar 0 with a graph."""
        return torch.where(torch.zeros_like(batch.student[HIDDEN], dtype=torch.bool), batch.student[HIDDEN], 0).sum()


def speaking(batch: LossInput) -> list[TeacherView]:
    """The teachers that give token signals; others of the batch may give only what other losses read."""
    return [view for view in batch.teachers if "topk" in view.target]


@dataclass(frozen=True)
class Stored:
    """One teacher's stored distributions at N tokens, (N, k), (N, k), (N, 3), and the trust in each, (N,)."""

    ids: Tensor
    log_p: Tensor
    tail: Tensor
    weight: Tensor


def stored(view: TeacherView, answers: Answers, *, same_tokens: bool) -> Stored:
    """What ``view`` says of the answers' tokens; weight 0 where it says nothing.

    Args:
        same_tokens: refuse a teacher whose answer is made of other tokens, which a divergence over one
            vocabulary needs; without it places are compared by their number alone.

    Raises:
        KdkitError: when tokens differ: the teacher has another tokenizer, or sees another answer.
    """
    tokens = view.target["tokens"].long()
    inside = answers.place < tokens.shape[1]
    place = answers.place.clamp(max=tokens.shape[1] - 1)
    theirs = tokens[answers.sample, place]
    weight = view.weight[answers.sample] * (inside & (theirs >= 0))
    if same_tokens and bool(((theirs != answers.ids) & (weight > 0)).any()):
        raise KdkitError(
            "KD-LOSS-002",
            f"teacher '{view.name}' and the student split answers into different tokens",
            why="a divergence compares probabilities of the same tokens",
            fix="a recipe with 'uld' in the place of 'token-kd', which compares sorted probabilities",
        )
    at = (answers.sample, place)
    ids = view.target["topk_ids"].long()[at].clamp(min=0)
    log_p, tail = (view.target[name][at].to(weight.dtype) for name in ("topk", "tail"))
    keep = (weight > 0)[:, None]
    return Stored(ids, torch.where(keep, log_p, 0), torch.where(keep, tail, 0), weight)
