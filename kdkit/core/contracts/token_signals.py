"""Stored next-token distributions of a generating model: the k most likely tokens, and the mass of the others.

Values are log-probabilities at temperature 1, which float16 represents accurately near 0. At temperature T the
distribution is p^(1/T), normalized. The stored top k gives its part at any T. The part of the others is
:mod:`kdkit.core.contracts.tail_mass`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from kdkit.core.contracts import Sample, SignalSpec
from kdkit.core.contracts.tail_mass import TAIL, tail_statistics

NO_TOKEN = -100
"""Token id after the end of an answer."""
NAMED = 64
"""Default k: 408 bytes per token."""
CHUNK = 128
"""Tokens per chunk of logits."""
HIDDEN, TOKENS, EMBEDDING = "answer_hidden", "answer_ids", "output_embedding"
"""Outputs of a generating student: (B, A, H); (B, A), negative after the end; (V, H)."""


@runtime_checkable
class PacksSamples(Protocol):
    """Optional, for a generating student that can compute several samples in one sequence."""

    def pack_samples(self, tokens: int) -> None:
        """From now on, put the samples of a batch into sequences of at most ``tokens`` tokens each; a longer sample has
        its own. Outputs and gradients stay those of separate samples, to rounding.

        Raises:
            KdkitError: it cannot keep samples apart.
        """


@runtime_checkable
class SplitsAnswers(Protocol):
    """A generating model that can tokenize an answer without the image."""

    def answer_tokens(self, sample: Sample) -> Sequence[int] | None:
        """Ids as in ``tokens``, up to the end; None if they depend on the image, or the answer is invalid."""


class TopK(NamedTuple):
    """``ids`` (N, k) int32; ``log_p`` (N, k), decreasing; ``tail`` (N, :data:`TAIL`), about the other tokens."""

    ids: Tensor
    log_p: Tensor
    tail: Tensor


def compress(logits: Tensor, k: int) -> TopK:
    """The stored form of (N, V) logits, in their dtype; ``k`` is at most V."""
    log_p = logits.log_softmax(-1)
    top = log_p.topk(min(k, logits.shape[-1]), dim=-1)
    rest = log_p.scatter(-1, top.indices, -torch.inf)
    return TopK(top.indices.to(torch.int32), top.values, tail_statistics(rest))


def token_specs(places: int, k: int) -> tuple[SignalSpec, ...]:
    """Signals of answers of at most ``places`` tokens: 4 + 6 k + 20 bytes per token."""
    return (
        SignalSpec("tokens", (places,), "int32"),
        SignalSpec("topk_ids", (places, k), "int32"),
        SignalSpec("topk", (places, k), "float16"),
        SignalSpec("tail", (places, TAIL), "float16"),
    )


@torch.no_grad()
def token_signals(outputs: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """Signals of B answers, (B, *shape) of :func:`token_specs`, from the outputs of a generating student; on the CPU.

    ``tokens`` (B, A) are the ids of the answers, -100 after the end. ``topk_ids`` (-100 there) and ``topk`` (B, A, k)
    are the most likely tokens and their log-probabilities; ``tail`` (B, A, :data:`TAIL`) describes the others. Logits
    are computed in chunks of :data:`CHUNK` tokens.
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
