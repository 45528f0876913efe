"""The answer tokens of a batch, each teacher's stored distributions there, and the student's over the same classes.

:mod:`kdkit.core.contracts.token_signals` defines what is stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import LossInput, TeacherView
from kdkit.core.contracts.tail_mass import MASSES, NEVER, NOT_KNOWN, TAIL, TEMPERATURES, has_temperature, tail_mass
from kdkit.core.contracts.token_signals import EMBEDDING, HIDDEN, TOKENS


@dataclass(frozen=True)
class AnswerTokens:
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
    def of(cls, batch: LossInput, present: Tensor | None = None) -> AnswerTokens:
        """The tokens that ``present`` (B, A) marks, by default all."""
        ids = batch.student[TOKENS].long()
        sample, place = (ids >= 0 if present is None else present).nonzero(as_tuple=True)
        hidden = batch.student[HIDDEN][sample, place]
        return cls(hidden, batch.student[EMBEDDING], ids[sample, place], sample, place)


def token_teachers(batch: LossInput) -> list[TeacherView]:
    """The teachers with token signals; other losses read the other teachers."""
    return [view for view in batch.teachers if "topk" in view.target]


@dataclass(frozen=True)
class StoredDistributions:
    """One teacher at N tokens: ``ids``, ``log_p`` (N, k), ``tail`` (N, width), and the trust ``weight`` (N,)."""

    ids: Tensor
    log_p: Tensor
    tail: Tensor
    weight: Tensor


def read_stored(view: TeacherView, answers: AnswerTokens, *, same_tokens: bool) -> StoredDistributions:
    """The teacher's distributions at the answers' tokens; weight 0 where it has none.

    Args:
        same_tokens: require the teacher's token ids to equal the student's, as a divergence over one vocabulary does;
            otherwise tokens are matched by position.

    Raises:
        KdkitError: when token ids differ: another tokenizer, or another answer.
    """
    tokens = view.target["tokens"].long()
    inside = answers.place < tokens.shape[1]
    place = answers.place.clamp(max=tokens.shape[1] - 1)
    teacher_ids = tokens[answers.sample, place]
    weight = view.weight[answers.sample] * (inside & (teacher_ids >= 0))
    if same_tokens and bool(((teacher_ids != answers.ids) & (weight > 0)).any()):
        raise KdkitError(
            "KD-LOSS-002",
            f"teacher '{view.name}' and the student split answers into different tokens",
            why="a divergence compares probabilities of the same tokens",
            fix="replace 'token-kd' by 'uld' in the recipe: it compares sorted probabilities",
        )
    at = (answers.sample, place)
    ids = view.target["topk_ids"].long()[at].clamp(min=0)
    log_p, tail = (view.target[name][at].to(weight.dtype) for name in ("topk", "tail"))
    keep = (weight > 0)[:, None]
    return StoredDistributions(ids, torch.where(keep, log_p, 0), torch.where(keep, tail, 0), weight)


def require_temperature(temperature: float, width: int = TAIL) -> None:
    """Raises: KdkitError: a tail of this width has no mass at the temperature."""
    if has_temperature(temperature, width):
        return
    listed = ", ".join(f"{t:g}" for t in TEMPERATURES[:width])
    raise KdkitError(
        "KD-LOSS-005",
        f"token signals are not stored for temperature {temperature:g}",
        why="the teacher gives the mass of its other tokens at three temperatures alone" if width == MASSES else "",
        fix=f"choose one of {listed}"
        if width == MASSES
        else f"choose a temperature from {TEMPERATURES[0]:g} to {TEMPERATURES[-1]:g}",
    )


def at_temperature(log_p: Tensor, tail: Tensor, temperature: float) -> Tensor:
    """(N, k + 1) log of the teacher's distribution at ``temperature``: the k tokens, then all others as one class.

    Raises:
        KdkitError: a temperature for which the mass of the other tokens is not stored, or unknown.
    """
    require_temperature(temperature, tail.shape[-1])
    rest = tail_mass(tail, temperature).estimate
    if temperature > 1 and bool((rest >= NOT_KNOWN).any()):
        raise KdkitError(
            "KD-LOSS-006",
            f"a teacher's distribution at temperature {temperature:g} is unknown",
            why="a server returns the likeliest tokens alone, and the others weigh more at high temperatures",
            fix="set the loss's temperature to 1 or 0.5",
        )
    return torch.cat([log_p / temperature, rest.clamp(min=NEVER)], dim=-1).log_softmax(-1)


def within_vocabulary(log_p: Tensor, ids: Tensor, size: int) -> Tensor:
    """(N, k + 1) of :func:`at_temperature`, with tokens outside of a vocabulary of ``size`` moved into the last class.

    Models of one family share a tokenizer, but not the number of rows: Qwen2-VL-7B has 152,064, 2B has 151,936.
    """
    outside = F.pad(ids >= size, (0, 1), value=True)
    rest = log_p.masked_fill(~outside, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([log_p.masked_fill(outside, NEVER)[:, :-1], rest], dim=-1)


def student_classes(logits: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """(c, V) logits -> (c, k + 1): the student's log probabilities of the teacher's k tokens, and of the rest.

    Ids outside of the vocabulary have :data:`NEVER`.
    """
    logits, size = logits / temperature, logits.shape[-1]
    whole = logits.logsumexp(-1, keepdim=True)
    chosen = (logits.gather(-1, ids.clamp(max=size - 1)) - whole).masked_fill(ids >= size, NEVER)
    # Two columns more: one takes the ids outside, the other keeps the rest finite if all tokens are named.
    others = F.pad(logits, (0, 2), value=NEVER).scatter_(-1, ids.clamp(max=size), -torch.inf)
    return torch.cat([chosen, others.logsumexp(-1, keepdim=True) - whole], dim=-1)
