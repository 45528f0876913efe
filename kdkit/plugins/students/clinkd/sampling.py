"""Sampling by numbers of each sample's own, so that an answer does not depend on the batch that it is drawn in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor


class SeededSampling(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Leaves one token of each row: the one that the row's next uniform number draws from its distribution.

    Stock ``generate`` draws all rows from one generator, so a row's answer changes with the rows beside it. Here row b
    and place s use number s of a generator of their own. The token is the first whose cumulative probability exceeds
    it, with ids in ascending order. Greedy decoding of the result is exact sampling.

    Args:
        seeds: of B rows.
        most: maximum number of tokens of an answer.
        before: tokens of the prompt among those that ``generate`` shows.
        temperature: above 0.
        top_p: the smallest set of likeliest tokens with at least this probability is drawn from; 1 for all tokens.
    """

    def __init__(self, seeds: Sequence[int], *, most: int, temperature: float, top_p: float, before: int = 0) -> None:
        self._numbers = torch.from_numpy(np.stack([np.random.default_rng(seed).random(most) for seed in seeds]))
        self._temperature, self._top_p, self._before = temperature, top_p, before

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, s) tokens so far and (B, V) logits -> (B, V), 0 for the drawn token, else -inf."""
        numbers = self._numbers[:, input_ids.shape[1] - self._before, None].to(scores.device)
        drawn = draw(scores, numbers, temperature=self._temperature, top_p=self._top_p)
        return torch.full_like(scores, -torch.inf).scatter_(-1, drawn, 0.0)


def draw(logits: Tensor, numbers: Tensor, *, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    """(B, 1) tokens drawn from (B, V) logits by uniform ``numbers`` (B, 1) in [0, 1)."""
    p = (logits.double() / temperature).softmax(-1)
    if top_p < 1:
        ordered, order = p.sort(-1, descending=True)
        ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered >= top_p, 0.0)
        p = torch.zeros_like(p).scatter_(-1, order, ordered)
    cumulative = p.cumsum(-1)
    return torch.searchsorted(cumulative, numbers * cumulative[:, -1:], right=True).clamp(max=p.shape[-1] - 1)
