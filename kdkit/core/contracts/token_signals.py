"""A generating model's next-token distributions as they are stored: its k likeliest tokens, and the mass of all others.

Log probabilities at temperature 1, because these are exact in float16 where it matters (near 0). At a
temperature T the distribution is p^(1/T), normalized; the k tokens' part follows from what is stored, the
rest's does not, so its log mass is stored for each of :data:`TEMPERATURES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from kdkit.core.contracts import Sample, SignalSpec

TEMPERATURES = (0.5, 1.0, 2.0)
NEVER = -1e4
"""The log probability of a class that cannot be."""
NOT_KNOWN = 100.0
"""A tail that nobody knows; a log mass at these temperatures is below log V."""
NO_TOKEN = -100
"""In the place of a token's id after the end of an answer."""
NAMED = 64
"""Likeliest tokens that are named, by default: 394 bytes a token."""
CHUNK = 128
"""Tokens whose logits exist at one time."""
HIDDEN, TOKENS, EMBEDDING = "answer_hidden", "answer_ids", "output_embedding"
"""What a generating student gives: (B, A, H); (B, A), negative after the end; (V, H)."""


@runtime_checkable
class SplitsAnswers(Protocol):
    """A generating student or teacher that knows, without the image, into which tokens it splits an answer."""

    def answer_tokens(self, sample: Sample) -> Sequence[int] | None:
        """Ids as in ``tokens``, up to the end; None where it takes the image, or cannot be taught the answer."""


class TopK(NamedTuple):
    """``ids`` (N, k) int32, ``log_p`` (N, k) falling, ``tail`` (N, 3) log sum over the rest of p^(1/T)."""

    ids: Tensor
    log_p: Tensor
    tail: Tensor


def compress(logits: Tensor, k: int) -> TopK:
    """The stored form of (N, V) logits, in their dtype; ``k`` is at most V."""
    log_p = logits.log_softmax(-1)
    top = log_p.topk(min(k, logits.shape[-1]), dim=-1)
    rest = log_p.scatter(-1, top.indices, -torch.inf)
    tail = torch.stack([(rest / t).logsumexp(-1) for t in TEMPERATURES], dim=-1)
    return TopK(top.indices.to(torch.int32), top.values, tail.clamp(min=NEVER))


def tail_of(log_p: Tensor) -> Tensor:
    """(N, 3) of which nothing is known but ``log_p`` (N, k), falling: what a server tells.

    At temperature 1 it is the rest of the mass. At 0.5 it is the most that it can be: each of the others is at most as
    likely as the last of the k, so that their sum of p^2 is at most the mass times that. At 2 there is no such bound:
    :data:`NOT_KNOWN`.
    """
    rest = (1 - log_p.exp().sum(-1)).clamp(min=0).log().clamp(min=NEVER)
    return torch.stack([(rest + log_p[..., -1]).clamp(min=NEVER), rest, torch.full_like(rest, NOT_KNOWN)], dim=-1)


def token_specs(places: int, k: int) -> tuple[SignalSpec, ...]:
    """The signals of answers of at most ``places`` tokens: 4 + 6 k + 6 bytes a token."""
    return (
        SignalSpec("tokens", (places,), "int32"),
        SignalSpec("topk_ids", (places, k), "int32"),
        SignalSpec("topk", (places, k), "float16"),
        SignalSpec("tail", (places, len(TEMPERATURES)), "float16"),
    )


@torch.no_grad()
def token_signals(outputs: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """What a generating student's outputs say of B answers, (B, *shape) of :func:`token_specs`, on the CPU.

    ``tokens`` (B, A) are the ids of the answers and -100 after the end; ``topk_ids`` (-100 there) and ``topk`` (B, A,
    k) the likeliest tokens and their log probabilities; ``tail`` (B, A, 3) the log mass of all others. Logits exist
    for :data:`CHUNK` tokens at a time.
    """
    ids, embedding = outputs[TOKENS], outputs[EMBEDDING]
    known = ids >= 0
    states = torch.split(outputs[HIDDEN][known].to(embedding.dtype), CHUNK)
    parts = [compress((part @ embedding.T).float(), k) for part in states]
    made: dict[str, Tensor] = {"tokens": ids.to(torch.int32).cpu()}
    for name, values in zip(("topk_ids", "topk", "tail"), zip(*parts, strict=True), strict=True):
        flat = torch.cat(values)
        full = torch.full((*ids.shape, flat.shape[-1]), NO_TOKEN if name == "topk_ids" else 0, dtype=flat.dtype)
        full[known.cpu()] = flat.cpu()
        made[name] = full
    return made
