"""BLEU-1 to BLEU-4 (Papineni et al., ACL 2002), as pycocoevalcap computes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
ORDER = 4
_SMALL, _TINY = 1e-9, 1e-15
"""Added to denominators and numerators, so that nothing is divided by 0."""


def bleu_counts(answers: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> Array:
    """What BLEU is made of, one row per sample with one reference each.

    Args:
        answers, references: N lists of words.

    Returns:
        (N, 2 + 2 * 4) float64: words of the answer, words of the reference, then for n = 1 ... 4 the answer's
        n-grams that the reference has too (clipped), and for n = 1 ... 4 all n-grams of the answer.
    """
    rows = np.zeros((len(answers), 2 + 2 * ORDER))
    for row, answer, reference in zip(rows, answers, references, strict=True):
        row[:2] = len(answer), len(reference)
        for n in range(1, ORDER + 1):
            shared = n_grams(answer, n) & n_grams(reference, n)
            row[1 + n], row[1 + ORDER + n] = shared.total(), max(0, len(answer) - n + 1)
    return rows


def bleu(counts: Array) -> Array:
    """Rows of (summed) :func:`bleu_counts`, (R, 10) -> (R, 4) in [0, 1].

    ``BLEU_n = min(1, exp(1 - r / c)) * (p_1 ... p_n)^(1 / n)``. Of a corpus: from the sum of its rows; of one
    sentence: from its own row, where a missing 4-gram makes BLEU-4 nearly 0.
    """
    length, reference = counts[:, 0], counts[:, 1]
    matched, whole = counts[:, 2 : 2 + ORDER], counts[:, 2 + ORDER :]
    precisions = np.cumprod((matched + _TINY) / (whole + _SMALL), axis=1)
    ratio = (length + _TINY) / (reference + _SMALL)
    penalty = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return np.asarray(precisions ** (1 / np.arange(1, ORDER + 1)) * penalty[:, None])


def n_grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each run of ``n`` words occurs."""
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))
