"""BLEU-1 to 4 (Papineni et al., ACL 2002), ROUGE-L (Lin and Och, ACL 2004) and CIDEr-D (Vedantam et al., CVPR 2015).

All equal pycocoevalcap's values for one reference per sample, except that CIDEr-D lacks the factor 10.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
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


BETA = 1.2


def rouge_l(answer: Sequence[str], reference: Sequence[str]) -> float:
    """``(1 + b^2) P R / (R + b^2 P)`` of the longest common subsequence of two lists of words, in [0, 1].

    An empty list counts as one empty word, as splitting an empty line gives it.
    """
    answer, reference = answer or [""], reference or [""]
    common = longest_common_subsequence(answer, reference)
    if not common:
        return 0.0
    precision, recall = common / len(answer), common / len(reference)
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """How many words both have in the same order, gaps allowed."""
    best = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for place, other in enumerate(second, start=1):
            above = best[place]
            best[place] = diagonal + 1 if word == other else max(above, best[place - 1])
            diagonal = above
    return best[-1]


SIGMA = 6.0
Gram = tuple[str, ...]


def cider(answers: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> list[float]:
    """One value in [0, 1] per sample; rare n-grams weigh more, so a value depends on the whole corpus of references.

    ``10 * value`` is what pycocoevalcap gives. The mean over n = 1 ... 4 of the clipped cosine of tf-idf vectors
    times ``exp(-(l - l')^2 / (2 sigma^2))``, with lengths in bigrams. With fewer than two samples every idf is 0,
    and so is the value.

    Args:
        answers, references: N lists of words; one reference each.
    """
    grams = [[n_grams(words, n) for n in range(1, ORDER + 1)] for words in references]
    occurs: Counter[Gram] = Counter(gram for sample in grams for counts in sample for gram in counts)
    weights = _Weights(occurs, math.log(len(references)) if references else 0.0)
    return [
        weights.similarity([n_grams(words, n) for n in range(1, ORDER + 1)], sample)
        for words, sample in zip(answers, grams, strict=True)
    ]


class _Weights:
    """tf-idf weights over one corpus.

    Args:
        occurs: n-gram -> number of references that have it.
        size: logarithm of the number of references.
    """

    def __init__(self, occurs: Mapping[Gram, int], size: float) -> None:
        self.occurs, self.size = occurs, size

    def similarity(self, answer: Sequence[Counter[Gram]], reference: Sequence[Counter[Gram]]) -> float:
        """Mean over n of the penalized clipped cosine."""
        difference = answer[1].total() - reference[1].total()
        penalty = math.exp(-(difference**2) / (2 * SIGMA**2))
        pairs = zip(answer, reference, strict=True)
        return penalty * sum(self._cosine(self._vector(a), self._vector(r)) for a, r in pairs) / ORDER

    def _vector(self, counts: Counter[Gram]) -> dict[Gram, float]:
        return {gram: n * (self.size - math.log(max(1, self.occurs.get(gram, 0)))) for gram, n in counts.items()}

    @staticmethod
    def _cosine(answer: Mapping[Gram, float], reference: Mapping[Gram, float]) -> float:
        product = sum(min(w, reference[gram]) * reference[gram] for gram, w in answer.items() if gram in reference)
        lengths = math.sqrt(sum(w * w for w in answer.values())) * math.sqrt(sum(w * w for w in reference.values()))
        return min(1.0, product / lengths) if lengths else 0.0
